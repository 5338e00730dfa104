// Keeps the page's own files, so that it opens without a server. Content is none of its business: that is in IndexedDB.
const CACHE = 'trip-planner'

self.addEventListener('install', () => self.skipWaiting())
self.addEventListener('activate', event => event.waitUntil(self.clients.claim().then(() => keepPage())))

// Files that were loaded before there was this worker.
async function keepPage() {
  const page = await fetch('/')
  const text = await page.clone().text()
  const cache = await caches.open(CACHE)
  await cache.put('/', page)
  await cache.addAll([...text.matchAll(/"(\/assets\/[^"]+)"/g)].map(match => match[1]))
}

self.addEventListener('fetch', event => {
  const url = new URL(event.request.url)
  if (event.request.method !== 'GET' || url.origin !== location.origin) return
  // What has a hash in its name never changes; the page is asked for anew as long as there is somebody to ask.
  if (url.pathname.startsWith('/assets/')) event.respondWith(cached(event.request))
  else if (event.request.mode === 'navigate' && url.pathname === '/') event.respondWith(fetch('/').then(keep).catch(() => caches.match('/')))
})

async function cached(request) {
  const found = await caches.match(request)
  if (found) return found
  const response = await fetch(request)
  if (response.ok) await (await caches.open(CACHE)).put(request, response.clone())
  return response
}

function keep(response) {
  if (response.ok) {
    const copy = response.clone()
    caches.open(CACHE).then(cache => cache.put('/', copy))
  }
  return response
}

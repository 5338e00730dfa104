// A headless Chromium, driven by tests/support/browser.py in the way of client.mjs: one JSON request a line on stdin, one
// answer a line on stdout, in any order. The browser is in CHROMIUM; each page is a context of its own, as if in a new profile.
// Selectors are Playwright's (https://playwright.dev/docs/other-locators), `role=button[name="Close"]` or CSS.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import * as readline from 'node:readline'
import { chromium } from 'playwright-core'

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  chromiumSandbox: false,
  args: ['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']
})
const pages = new Map()

const open = async ({ page: name, url, width, height, dark, timeoutMs, scale = 1, clock = false }) => {
  const context = await browser.newContext({
    viewport: { width, height }, deviceScaleFactor: scale, colorScheme: dark ? 'dark' : 'light', reducedMotion: 'reduce', locale: 'en-GB', timezoneId: 'UTC'
  })
  if (clock) await context.clock.install()
  const page = await context.newPage()
  page.setDefaultTimeout(timeoutMs)
  const seen = { errors: [], requests: [] }
  // What the page's scripts failed at, and what its own policy forbade.
  page.on('pageerror', error => seen.errors.push(String(error)))
  page.on('console', message => {
    // Answers of 400 and above are no failures of scripts.
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) seen.errors.push(message.text())
  })
  page.on('dialog', dialog => {
    seen.errors.push(`${dialog.type()}: ${dialog.message()}`)
    return dialog.dismiss()
  })
  page.on('request', request => seen.requests.push(request.url()))
  pages.set(name, { context, page, seen, timeoutMs })
  await page.goto(url)
}

// Playwright's own way to wait evaluates in the page, which a strict policy of the page's forbids.
const until = async ({ page, timeoutMs }, { script }) => {
  const deadline = performance.now() + timeoutMs
  while (!await page.evaluate(script)) {
    if (performance.now() > deadline) throw new Error(`not true within ${timeoutMs} ms: ${script}`)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

const operations = {
  goto: ({ page }, { url }) => page.goto(url).then(() => null),
  reload: ({ page }) => page.reload().then(() => null),
  click: ({ page }, { selector }) => page.locator(selector).click(),
  fill: ({ page }, { selector, text }) => page.locator(selector).fill(text),
  press: ({ page }, { key }) => page.keyboard.press(key),
  type: ({ page }, { text }) => page.keyboard.type(text),
  pass: ({ context }, { timeMs }) => context.clock.fastForward(timeMs),
  drag: ({ page }, { selector, onto }) => page.locator(selector).dragTo(page.locator(onto)),
  select: ({ page }, { selector, value }) => page.locator(selector).selectOption(value),
  see: ({ page }, { selector }) => page.locator(selector).first().waitFor(),
  gone: ({ page }, { selector }) => page.locator(selector).first().waitFor({ state: 'hidden' }),
  text: ({ page }, { selector }) => page.locator(selector).first().innerText(),
  texts: ({ page }, { selector }) => page.locator(selector).allInnerTexts(),
  evaluate: ({ page }, { script }) => page.evaluate(script),
  until,
  screenshot: ({ page }, { path, whole }) => page.screenshot({ path, fullPage: whole }).then(() => null),
  flaws: async ({ page }) => {
    await page.evaluate(readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8'))
    const { violations } = await page.evaluate('axe.run({ resultTypes: ["violations"] })')
    return violations.flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) => `${id}: ${target.join(' ')}: ${failureSummary}`))
  },
  seen: ({ seen }) => seen,
  offline: ({ context }, { offline }) => context.setOffline(offline),
  answer: ({ context }, { url, status, body, contentType }) =>
    context.route(url, route => route.fulfill({ status, body, contentType })),
  close: async ({ context }, { page }) => {
    pages.delete(page)
    await context.close()
  }
}

const answer = async line => {
  const { id, op, ...request } = JSON.parse(line)
  try {
    const ok = op === 'open' ? await open(request)
      : op === 'end' ? await browser.close() : await operations[op](pages.get(request.page), request)
    process.stdout.write(`${JSON.stringify({ id, ok: ok ?? null })}\n`)
  } catch (error) {
    const seen = await pages.get(request.page)?.page.locator('body').innerText({ timeout: 1000 }).catch(String) ?? ''
    process.stdout.write(`${JSON.stringify({ id, failed: `${error?.message ?? error}\n\nThe page shows:\n${seen.slice(0, 3000)}` })}\n`)
  }
}

readline.createInterface({ input: process.stdin }).on('line', answer).on('close', async () => {
  await browser.close()
  process.exit()
})

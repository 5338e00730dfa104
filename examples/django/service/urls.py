"""What Django answers; everything below /sync/ is crdt-sync's."""

from django.urls import path
from trips import views

urlpatterns = [
    path("login", views.sign_in),
    path("trips/<int:trip>/suggestions", views.suggest),
    path("trips/<int:trip>/titles", views.write_title),
    path("search", views.search),
]

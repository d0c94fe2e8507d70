"use strict";

// The pages of the management API. Whoever is signed in can try it out; so requests carry the CSRF token.
const page = document.getElementById("api");
const csrf = page.dataset.csrf;

SwaggerUIBundle({
  url: page.dataset.schema,
  domNode: page,
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  filter: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
  requestInterceptor(request) {
    const own = new URL(request.url, location.href).origin === location.origin;
    if (own && csrf && !["GET", "HEAD"].includes((request.method || "GET").toUpperCase())) {
      request.headers["X-CSRFToken"] = csrf;
    }
    return request;
  },
});

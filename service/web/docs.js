/** The description of the API, to read and to try; a module runs after the script before it. */

const { SwaggerUIBundle } = /** @type {any} */ (window);
SwaggerUIBundle({ url: "openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null });

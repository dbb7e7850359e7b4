//! Errors and refusals as responses.

use std::sync::Arc;

use ::axum::body::Body;
use ::axum::http::{HeaderName, HeaderValue, StatusCode, header};
use ::axum::response::{IntoResponse, Response};

use crate::error::Error;
use crate::web::Refusal;

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.code(), "reason": self.reason() }).to_string();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in self.headers() {
            headers.extend(HeaderValue::try_from(&*value).ok().map(|value| (HeaderName::from_static(name), value)));
        }
        if let Some(cause) = self.cause() {
            response.extensions_mut().insert(Arc::clone(cause));
        }
        response
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        Refusal::from(self).into_response()
    }
}

//! What a request may send: heads and bodies of bounded size, read to their end.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use dwell::web::Refusal;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use super::posted::{BODY_BYTES_MAX, too_large};
use super::server::HEAD_BYTES_MAX;

/// How long a client may take to send a body.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is read and thrown away of a body that is too long, so that its sender gets to see the answer: a connection
/// that is closed with bytes unread is reset.
const SPILL_BYTES_MAX: usize = 1024 * 1024;
const SPILL_PATIENCE: Duration = Duration::from_secs(2);

/// The request with its whole body, or why there is none.
pub(super) async fn whole(request: Request) -> Result<Request, Response> {
    let (parts, mut body) = request.into_parts();
    if head_bytes(&parts) > HEAD_BYTES_MAX {
        let reason = format!("the head of a request may take {HEAD_BYTES_MAX} bytes");
        return Err(closing(Refusal::new(431, "head_too_large", reason)));
    }
    if body.is_end_stream() {
        return Ok(Request::from_parts(parts, body));
    }
    let said = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if said.and_then(|digits| digits.parse::<u64>().ok()).is_some_and(|bytes| bytes > BODY_BYTES_MAX as u64) {
        // Who asks first sends nothing after a refusal.
        if !parts.headers.contains_key(header::EXPECT) {
            spill(body).await;
        }
        return Err(closing(too_large()));
    }
    match timeout(PATIENCE, Limited::new(&mut body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(read)) => Ok(Request::from_parts(parts, Body::from(read.to_bytes()))),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            spill(body).await;
            Err(closing(too_large()))
        }
        Ok(Err(_)) => Err(closing(Refusal::new(400, "body", "the body of the request makes no sense"))),
        Err(_) => Err(closing(Refusal::new(408, "body", "the body of the request took too long"))),
    }
}

/// The bytes of a head as it was sent, give or take its white space.
fn head_bytes(parts: &Parts) -> usize {
    let line = parts.method.as_str().len() + parts.uri.to_string().len() + " HTTP/1.1\r\n".len() + 1;
    let headers = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    line + headers.sum::<usize>() + "\r\n".len()
}

async fn spill(mut body: Body) {
    let read = async {
        let mut spilt = 0;
        while let Some(Ok(frame)) = body.frame().await {
            spilt += frame.data_ref().map_or(0, |data| data.len());
            if spilt > SPILL_BYTES_MAX {
                break;
            }
        }
    };
    let _whatever_is_left_is_lost = timeout(SPILL_PATIENCE, read).await;
}

/// The answer after which nobody knows where the next request would begin.
fn closing(refusal: Refusal) -> Response {
    let mut response = refusal.into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

//! Answers of the control socket that both commands and streams give.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use crate::api::Failure;

/// An answer that says what failed.
pub(crate) fn fail(status: StatusCode, text: String) -> Response {
    (status, Json(Failure { text, hints: Vec::new() })).into_response()
}

//! Limits by key: how many requests in a time ([`Rates`]), and how many at once ([`Counts`]).
//!
//! Both are tables of bounded memory, and both do what nginx does, to the thousandth of a request and to the millisecond
//! (ngx_http_limit_req_module, ngx_http_limit_conn_module). No I/O, no clock, no lock: `now` is an argument, and who shares a
//! table locks it.

#![forbid(unsafe_code)]

mod counts;
mod lru;
mod rates;

pub use counts::{Counted, Counts};
pub use rates::{Limit, Pin, Rate, Rates, Tried, Try, wait_ms};

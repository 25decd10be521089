//! `empty_gif`: a transparent picture of one pixel.

use crate::{
    answer::{Answer, Fields, Source},
    client,
    exchange::Method,
    job::{Flow, Job},
};

/// The picture (GIF89a): a screen of one pixel and two colours, of which the second is transparent, and that one.
const PICTURE: &[u8; 43] = b"GIF89a\x01\0\x01\0\x80\x01\0\0\0\0\xff\xff\xff!\xf9\x04\x01\0\0\x01\0,\0\0\0\0\x01\0\x01\0\0\x02\x02L\x01\0;";

/// When it was changed last, as nginx has it: 28 September 1970.
const MODIFIED: i64 = 23_349_600;

/// Answers with it.
pub(super) async fn run(job: &mut Job<'_>) -> Flow {
    if !job.ex.routed.as_get && !matches!(job.ex.routed.method, Method::Get | Method::Head) {
        return Flow::status(405);
    }
    if client::expect_continue(job).await.is_err() {
        return Flow::Close;
    }
    let fields =
        Fields { content_type: Some(b"image/gif".to_vec()), modified: Some(MODIFIED), ..Fields::default() };
    Flow::Answer(Answer::with(200, fields, Source::Bytes(PICTURE.to_vec())))
}

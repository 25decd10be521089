//! Control messages: what is read is written again as it was, and nothing else is read from that.

#![no_main]

use keel_model::{Order, Report};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(order) = Order::decode(bytes) {
        let written = order.encode().expect("what was read can be written");
        let again = Order::decode(&written).expect("what was written can be read");
        assert_eq!(format!("{order:?}"), format!("{again:?}"));
        assert_eq!(again.encode().expect("as before"), written);
    }
    if let Ok(report) = Report::decode(bytes) {
        let written = report.encode().expect("what was read can be written");
        let again = Report::decode(&written).expect("what was written can be read");
        assert_eq!(format!("{report:?}"), format!("{again:?}"));
    }
});

//! What filters do to a body as it passes, piece by piece.
//!
//! A filter that has something to do with a body adds a [`Transform`] to the answer while it looks at the head. The
//! transforms of an answer run one behind the other over each piece, whatever the body's source; where there are none, a
//! peer's body is passed on as it was read.

/// What compressing a body came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GzipRatio {
    pub(crate) plain_bytes: u64,
    pub(crate) packed_bytes: u64,
}

/// A body can't be changed as it should be; what was sent of it stays a fragment. The text is for the log.
#[derive(Debug)]
pub(crate) struct Broken(pub(crate) String);

/// Changes a body as it passes.
pub(crate) trait Transform {
    /// Changes the next piece of the payload. What it holds back it appends to a later one.
    fn piece(&mut self, piece: &mut Vec<u8>) -> Result<(), Broken>;

    /// Appends what was held back only to do better with more: nothing more comes for the moment.
    fn flush(&mut self, _out: &mut Vec<u8>) -> Result<(), Broken> {
        Ok(())
    }

    /// Appends what ends the body.
    fn end(&mut self, _out: &mut Vec<u8>) -> Result<(), Broken> {
        Ok(())
    }

    /// Whether flushing would give something.
    fn holds(&self) -> bool {
        false
    }

    /// How many bytes it takes at a time, so that what it makes of them stays within bounds.
    fn input_bytes_max(&self) -> usize {
        usize::MAX
    }

    /// What compressing came to, once the body has gone through.
    fn gzip_ratio(&self) -> Option<GzipRatio> {
        None
    }
}

/// The transforms of an answer, in the order in which they act.
#[derive(Default)]
pub(crate) struct Transforms(Vec<Box<dyn Transform>>);

impl Transforms {
    /// Adds one behind the others.
    pub(crate) fn push(&mut self, transform: impl Transform + 'static) {
        self.0.push(Box::new(transform));
    }

    /// Adds one before the others.
    pub(crate) fn push_first(&mut self, transform: impl Transform + 'static) {
        self.0.insert(0, Box::new(transform));
    }

    /// Whether the body passes as it is.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Leaves the body as it is.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Changes the next piece.
    pub(crate) fn piece(&mut self, piece: &mut Vec<u8>) -> Result<(), Broken> {
        for transform in &mut self.0 {
            if piece.is_empty() {
                break;
            }
            transform.piece(piece)?;
        }
        Ok(())
    }

    /// Appends what is held back only to do better with more.
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        self.each(out, |transform, out| transform.flush(out))
    }

    /// Appends what ends the body.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        self.each(out, |transform, out| transform.end(out))
    }

    /// Lets each append something, which goes through those behind it.
    fn each(
        &mut self,
        out: &mut Vec<u8>,
        act: impl Fn(&mut dyn Transform, &mut Vec<u8>) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        for transform in &mut self.0 {
            if !out.is_empty() {
                transform.piece(out)?;
            }
            act(transform.as_mut(), out)?;
        }
        Ok(())
    }

    /// Whether flushing would give something.
    pub(crate) fn holds(&self) -> bool {
        self.0.iter().any(|transform| transform.holds())
    }

    /// How many bytes they take at a time.
    pub(crate) fn input_bytes_max(&self) -> usize {
        self.0.iter().map(|transform| transform.input_bytes_max()).min().unwrap_or(usize::MAX)
    }

    /// What compressing came to, once the body has gone through.
    pub(crate) fn gzip_ratio(&self) -> Option<GzipRatio> {
        self.0.iter().find_map(|transform| transform.gzip_ratio())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts a letter before each piece, holds back the last byte, and ends with a letter of its own.
    struct Marks(u8, Vec<u8>);

    impl Transform for Marks {
        fn piece(&mut self, piece: &mut Vec<u8>) -> Result<(), Broken> {
            let last = piece.pop();
            let mut out = std::mem::take(&mut self.1);
            out.push(self.0);
            out.append(piece);
            self.1.extend(last);
            *piece = out;
            Ok(())
        }

        fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
            out.append(&mut self.1);
            Ok(())
        }

        fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
            out.append(&mut self.1);
            out.push(self.0.to_ascii_uppercase());
            Ok(())
        }

        fn holds(&self) -> bool {
            !self.1.is_empty()
        }
    }

    #[test]
    fn what_one_gives_goes_through_the_next() {
        let mut both = Transforms::default();
        both.push(Marks(b'b', Vec::new()));
        both.push_first(Marks(b'a', Vec::new()));
        let mut piece = b"12".to_vec();
        both.piece(&mut piece).unwrap();
        assert_eq!((piece.as_slice(), both.holds()), (b"ba".as_slice(), true));
        piece.clear();
        both.flush(&mut piece).unwrap();
        assert_eq!((piece.as_slice(), both.holds()), (b"1b2".as_slice(), false));
        piece.clear();
        both.end(&mut piece).unwrap();
        assert_eq!(piece, b"bAB");
    }
}

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

/// A transform of any kind.
type AnyTransform = Box<dyn Transform>;

/// The transforms of an answer, in the order in which they act. What is included in a body, other responses, comes in
/// between: it goes through the outer ones alone.
#[derive(Default)]
pub(crate) struct Transforms {
    inner: Vec<AnyTransform>,
    outer: Vec<AnyTransform>,
}

/// Lets each append something, which goes through those behind it.
fn each<'a>(
    transforms: impl Iterator<Item = &'a mut AnyTransform>,
    out: &mut Vec<u8>,
    act: impl Fn(&mut dyn Transform, &mut Vec<u8>) -> Result<(), Broken>,
) -> Result<(), Broken> {
    for transform in transforms {
        if !out.is_empty() {
            transform.piece(out)?;
        }
        act(transform.as_mut(), out)?;
    }
    Ok(())
}

impl Transforms {
    /// Adds one behind the others that change what the body itself says.
    pub(crate) fn push(&mut self, transform: impl Transform + 'static) {
        self.inner.push(Box::new(transform));
    }

    /// Adds one before the others.
    pub(crate) fn push_first(&mut self, transform: impl Transform + 'static) {
        self.inner.insert(0, Box::new(transform));
    }

    /// Adds one behind all others, for the body and what is included in it.
    pub(crate) fn push_outer(&mut self, transform: impl Transform + 'static) {
        self.outer.push(Box::new(transform));
    }

    /// Whether the body passes as it is.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.inner.is_empty() && self.outer.is_empty()
    }

    /// Leaves the body as it is.
    pub(crate) fn clear(&mut self) {
        self.inner.clear();
        self.outer.clear();
    }

    fn all(&self) -> impl Iterator<Item = &AnyTransform> {
        self.inner.iter().chain(&self.outer)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut AnyTransform> {
        self.inner.iter_mut().chain(&mut self.outer)
    }

    /// Changes the next piece of the body.
    pub(crate) fn piece(&mut self, piece: &mut Vec<u8>) -> Result<(), Broken> {
        each(self.all_mut(), piece, |_, _| Ok(()))
    }

    /// Changes a piece of what is included.
    pub(crate) fn included(&mut self, piece: &mut Vec<u8>) -> Result<(), Broken> {
        each(self.outer.iter_mut(), piece, |_, _| Ok(()))
    }

    /// Appends what is held back only to do better with more.
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        each(self.all_mut(), out, |transform, out| transform.flush(out))
    }

    /// Appends what ends the body itself. Something may be included behind it.
    pub(crate) fn end_inner(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        each(self.inner.iter_mut(), out, |transform, out| transform.end(out))?;
        self.included(out)
    }

    /// Appends what ends everything.
    pub(crate) fn end_outer(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        let mut tail = Vec::new();
        each(self.outer.iter_mut(), &mut tail, |transform, out| transform.end(out))?;
        out.append(&mut tail);
        Ok(())
    }

    /// Whether flushing would give something.
    pub(crate) fn holds(&self) -> bool {
        self.all().any(|transform| transform.holds())
    }

    /// How many bytes they take at a time.
    pub(crate) fn input_bytes_max(&self) -> usize {
        self.all().map(|transform| transform.input_bytes_max()).min().unwrap_or(usize::MAX)
    }

    /// What compressing came to, once the body has gone through.
    pub(crate) fn gzip_ratio(&self) -> Option<GzipRatio> {
        self.all().find_map(|transform| transform.gzip_ratio())
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
        both.push_outer(Marks(b'c', Vec::new()));
        let mut piece = b"12".to_vec();
        both.piece(&mut piece).unwrap();
        assert_eq!((piece.as_slice(), both.holds()), (b"cb".as_slice(), true));
        piece.clear();
        both.flush(&mut piece).unwrap();
        assert_eq!((piece.as_slice(), both.holds()), (b"ac1b2".as_slice(), false));
        piece = b"xy".to_vec();
        both.included(&mut piece).unwrap();
        assert_eq!(piece, b"cx");
        piece.clear();
        both.end_inner(&mut piece).unwrap();
        assert_eq!(piece, b"ycbA");
        both.end_outer(&mut piece).unwrap();
        assert_eq!(piece, b"ycbABC");
    }
}

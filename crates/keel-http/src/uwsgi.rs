//! The head of a request in the uwsgi protocol (uwsgi-docs.readthedocs.io/en/latest/Protocol.html): four bytes, then the
//! variables. The body follows as it is, and so does the response, which is as CGI writes it or as HTTP/1 does.

/// The most bytes of variables: their length has 16 bits.
pub const VARS_BYTES_MAX: usize = u16::MAX as usize;

/// What tells a uWSGI server which of its parts a request is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modifiers {
    /// The first: which kind of application, 0 for WSGI.
    pub first: u8,
    /// The second, whose meaning depends on the first.
    pub second: u8,
}

/// Appends a variable. False where the name or the value is too long for its length to be written.
#[must_use]
pub fn var(name: &[u8], value: &[u8], out: &mut Vec<u8>) -> bool {
    let (Ok(name_length), Ok(value_length)) = (u16::try_from(name.len()), u16::try_from(value.len())) else {
        return false;
    };
    out.extend_from_slice(&name_length.to_le_bytes());
    out.extend_from_slice(name);
    out.extend_from_slice(&value_length.to_le_bytes());
    out.extend_from_slice(value);
    true
}

/// Appends a head with these variables. False where they are too long for one.
#[must_use]
pub fn head(modifiers: Modifiers, vars: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(length) = u16::try_from(vars.len()) else { return false };
    let [low, high] = length.to_le_bytes();
    out.extend_from_slice(&[modifiers.first, low, high, modifiers.second]);
    out.extend_from_slice(vars);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_a_head() {
        let (mut vars, mut out) = (Vec::new(), Vec::new());
        assert!(var(b"A", b"", &mut vars) && var(b"BC", b"d", &mut vars));
        assert!(head(Modifiers { first: 5, second: 6 }, &vars, &mut out));
        assert_eq!(out, *b"\x05\x0c\0\x06\x01\0A\0\0\x02\0BC\x01\0d");
    }

    #[test]
    fn refuses_what_its_lengths_cannot_say() {
        let long = vec![b'x'; VARS_BYTES_MAX + 1];
        let mut out = Vec::new();
        assert!(!var(&long, b"", &mut out) && !var(b"A", &long, &mut out));
        assert!(!head(Modifiers::default(), &long, &mut out));
        assert!(out.is_empty());
    }
}

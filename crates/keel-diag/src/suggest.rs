//! "Did you mean".

/// The candidate nearest to a misspelt word, if one is near enough to be meant.
///
/// Near enough is a third of the word's length in edits (transposed letters are one), at least one.
pub fn suggest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let edits_max = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(edits, _)| *edits <= edits_max)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_only_what_is_near() {
        let known = ["proxy_read_timeout", "proxy_send_timeout", "root"];
        assert_eq!(suggest("proxy_read_timout", known), Some("proxy_read_timeout"));
        assert_eq!(suggest("rooot", known), Some("root"));
        assert_eq!(suggest("zebra", known), None);
    }
}

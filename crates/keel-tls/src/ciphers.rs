//! OpenSSL's lists of ciphers (`openssl-ciphers(1)`), as far as there are such suites here.
//!
//! A list is worked through as OpenSSL does: a word adds what it stands for behind what is there, `-` takes out, `!` for
//! good, a `+` in front moves to the end, and a `+` between words asks for all of them. Suites of TLS 1.3 are not its matter.

/// A suite of TLS 1.2.
struct Suite {
    number: u16,
    /// OpenSSL's name.
    name: &'static str,
    /// The words that stand for it, besides those that stand for all.
    words: &'static [&'static str],
}

/// All that are there, in OpenSSL's order.
const SUITES: [Suite; 6] = [
    Suite {
        number: 0xc02c,
        name: "ECDHE-ECDSA-AES256-GCM-SHA384",
        words: &["aECDSA", "ECDSA", "AES", "AES256", "AESGCM", "SHA384", "SUITEB192"],
    },
    Suite {
        number: 0xc030,
        name: "ECDHE-RSA-AES256-GCM-SHA384",
        words: &["aRSA", "AES", "AES256", "AESGCM", "SHA384"],
    },
    Suite { number: 0xcca9, name: "ECDHE-ECDSA-CHACHA20-POLY1305", words: &["aECDSA", "ECDSA", "CHACHA20"] },
    Suite { number: 0xcca8, name: "ECDHE-RSA-CHACHA20-POLY1305", words: &["aRSA", "CHACHA20"] },
    Suite {
        number: 0xc02b,
        name: "ECDHE-ECDSA-AES128-GCM-SHA256",
        words: &["aECDSA", "ECDSA", "AES", "AES128", "AESGCM", "SHA256", "SUITEB128"],
    },
    Suite {
        number: 0xc02f,
        name: "ECDHE-RSA-AES128-GCM-SHA256",
        words: &["aRSA", "AES", "AES128", "AESGCM", "SHA256"],
    },
];

/// Words that stand for each of them. `RSA` is none: it asks for RSA as the exchange of keys, without forward secrecy;
/// `aRSA` is what signs.
const FOR_ALL: [&str; 9] =
    ["ALL", "DEFAULT", "HIGH", "TLSv1.2", "ECDH", "ECDHE", "EECDH", "kECDHE", "kEECDH"];

/// Suites of TLS 1.3, and their names with OpenSSL.
const TLS13: [(u16, &str); 3] = [
    (0x1301, "TLS_AES_128_GCM_SHA256"),
    (0x1302, "TLS_AES_256_GCM_SHA384"),
    (0x1303, "TLS_CHACHA20_POLY1305_SHA256"),
];

/// What a list comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CipherChoice {
    /// The suites by IANA's numbers, the preferred one first.
    pub suites: Vec<u16>,
    /// What was asked for and isn't there.
    pub missing: Vec<String>,
}

/// Reads a list of ciphers.
pub fn choose_ciphers(list: &str) -> CipherChoice {
    let mut chosen: Vec<u16> = Vec::new();
    let mut killed: Vec<u16> = Vec::new();
    let mut missing = Vec::new();
    for element in list.split([':', ',', ' ', ';']).filter(|element| !element.is_empty()) {
        if element.starts_with('@') {
            // `@STRENGTH` and `@SECLEVEL=n`: all that are there are strong.
            continue;
        }
        let element = element.split_once('@').map_or(element, |(element, _)| element);
        let (sign, words) = match element.as_bytes().first() {
            Some(sign @ (b'!' | b'-' | b'+')) => (*sign, element.get(1..).unwrap_or_default()),
            _ => (b' ', element),
        };
        let found: Vec<u16> =
            SUITES.iter().filter(|suite| stands_for(words, suite)).map(|suite| suite.number).collect();
        match sign {
            b'!' => {
                chosen.retain(|number| !found.contains(number));
                killed.extend(found);
            }
            b'-' => chosen.retain(|number| !found.contains(number)),
            b'+' => {
                let moved: Vec<u16> =
                    chosen.iter().filter(|number| found.contains(number)).copied().collect();
                chosen.retain(|number| !found.contains(number));
                chosen.extend(moved);
            }
            _ => {
                if found.is_empty() && !TLS13.iter().any(|(_, name)| *name == words) {
                    missing.push(words.to_owned());
                }
                let new = found.into_iter().filter(|number| !killed.contains(number));
                let new: Vec<u16> = new.filter(|number| !chosen.contains(number)).collect();
                chosen.extend(new);
            }
        }
    }
    CipherChoice { suites: chosen, missing }
}

fn stands_for(words: &str, suite: &Suite) -> bool {
    let stands = |word: &str| suite.name == word || FOR_ALL.contains(&word) || suite.words.contains(&word);
    words.split('+').all(stands)
}

/// OpenSSL's name of a suite.
pub fn cipher_name(number: u16) -> Option<&'static str> {
    let tls12 = SUITES.iter().find(|suite| suite.number == number).map(|suite| suite.name);
    let tls13 = || TLS13.iter().find(|(known, _)| *known == number).map(|(_, name)| *name);
    tls12.or_else(tls13).or_else(|| OFFERED.iter().find(|(known, _)| *known == number).map(|(_, name)| *name))
}

/// Suites that clients offer and that are not there, with OpenSSL's names.
const OFFERED: [(u16, &str); 33] = [
    (0x0004, "RC4-MD5"),
    (0x0005, "RC4-SHA"),
    (0x000a, "DES-CBC3-SHA"),
    (0x002f, "AES128-SHA"),
    (0x0033, "DHE-RSA-AES128-SHA"),
    (0x0035, "AES256-SHA"),
    (0x0039, "DHE-RSA-AES256-SHA"),
    (0x003c, "AES128-SHA256"),
    (0x003d, "AES256-SHA256"),
    (0x0067, "DHE-RSA-AES128-SHA256"),
    (0x006b, "DHE-RSA-AES256-SHA256"),
    (0x009c, "AES128-GCM-SHA256"),
    (0x009d, "AES256-GCM-SHA384"),
    (0x009e, "DHE-RSA-AES128-GCM-SHA256"),
    (0x009f, "DHE-RSA-AES256-GCM-SHA384"),
    (0x00a2, "DHE-DSS-AES128-GCM-SHA256"),
    (0x00a3, "DHE-DSS-AES256-GCM-SHA384"),
    (0x00ff, "TLS_EMPTY_RENEGOTIATION_INFO_SCSV"),
    (0x1304, "TLS_AES_128_CCM_SHA256"),
    (0x1305, "TLS_AES_128_CCM_8_SHA256"),
    (0xc009, "ECDHE-ECDSA-AES128-SHA"),
    (0xc00a, "ECDHE-ECDSA-AES256-SHA"),
    (0xc012, "ECDHE-RSA-DES-CBC3-SHA"),
    (0xc013, "ECDHE-RSA-AES128-SHA"),
    (0xc014, "ECDHE-RSA-AES256-SHA"),
    (0xc023, "ECDHE-ECDSA-AES128-SHA256"),
    (0xc024, "ECDHE-ECDSA-AES256-SHA384"),
    (0xc027, "ECDHE-RSA-AES128-SHA256"),
    (0xc028, "ECDHE-RSA-AES256-SHA384"),
    (0xc0ac, "ECDHE-ECDSA-AES128-CCM"),
    (0xc0ad, "ECDHE-ECDSA-AES256-CCM"),
    (0xccaa, "DHE-RSA-CHACHA20-POLY1305"),
    (0x0016, "DHE-RSA-DES-CBC3-SHA"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> String {
        let choice = choose_ciphers(list);
        let names: Vec<&str> = choice.suites.iter().filter_map(|number| cipher_name(*number)).collect();
        let missing = choice.missing.iter().map(|name| format!("?{name}"));
        names.into_iter().map(str::to_owned).chain(missing).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn lists_are_worked_through_as_openssl_does() {
        let all = SUITES.map(|suite| suite.number).to_vec();
        for list in ["HIGH:!aNULL:!MD5", "DEFAULT@SECLEVEL=0", "ALL", "HIGH:@STRENGTH", "ECDHE+AESGCM:ECDHE"]
        {
            let mut suites = choose_ciphers(list).suites;
            suites.sort_unstable();
            let mut expect = all.clone();
            expect.sort_unstable();
            assert_eq!(suites, expect, "{list}");
        }
        assert_eq!(choose_ciphers("HIGH:!aNULL:!MD5").suites, all);
        assert_eq!(names("ECDHE+AES128:!ECDSA"), "ECDHE-RSA-AES128-GCM-SHA256");
        assert_eq!(
            names("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256"),
            "ECDHE-RSA-AES128-GCM-SHA256 ECDHE-ECDSA-AES128-GCM-SHA256"
        );
        assert_eq!(
            names("AES128:-aRSA:aRSA+AES128"),
            "ECDHE-ECDSA-AES128-GCM-SHA256 ECDHE-RSA-AES128-GCM-SHA256"
        );
        assert_eq!(names("CHACHA20:+ECDSA"), "ECDHE-RSA-CHACHA20-POLY1305 ECDHE-ECDSA-CHACHA20-POLY1305");
        assert_eq!(names("!aRSA:CHACHA20"), "ECDHE-ECDSA-CHACHA20-POLY1305");
        assert_eq!(choose_ciphers("HIGH:!aNULL:!MD5:!RSA").suites, all);
        assert_eq!(choose_ciphers("ALL:-ECDH").suites, []);
        assert_eq!(
            names("ECDH+AES256:!aRSA:DH+3DES:RSA+AES"),
            "ECDHE-ECDSA-AES256-GCM-SHA384 ?DH+3DES ?RSA+AES"
        );
        assert_eq!(
            names("DHE-RSA-AES128-GCM-SHA256 CHACHA20+aRSA,kRSA"),
            "ECDHE-RSA-CHACHA20-POLY1305 ?DHE-RSA-AES128-GCM-SHA256 ?kRSA"
        );
    }

    #[test]
    fn the_models_default_is_that_of_nginx() {
        assert_eq!(choose_ciphers("HIGH:!aNULL:!MD5").suites, keel_model::SslSettings::default().ciphers);
    }
}

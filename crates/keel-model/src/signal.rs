//! Signals by the names that people, files and images give them.

/// Linux's names, from 1 on. The numbers are those of every architecture but Alpha, MIPS, PA-RISC and SPARC.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// The first real-time signal that the C library leaves to programs, and the last.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Gives a signal's number from its name, in any case and with or without SIG (`SIGTERM`, `quit`, `RTMIN+3`), or from
/// its number. `None` where there is no such signal.
pub fn signal_number(text: &str) -> Option<i32> {
    let text = text.trim();
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(at) = NAMES.iter().position(|known| *known == name) {
        return i32::try_from(at + 1).ok();
    }
    let offset = |rest: &str| if rest.is_empty() { Some(0) } else { rest.parse::<i32>().ok() };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX"), name) {
        (Some(rest), ..) => RTMIN.checked_add(offset(rest)?)?,
        (_, Some(rest), _) => RTMAX.checked_add(offset(rest)?)?,
        (.., "IOT") => 6,
        (.., "POLL") => 29,
        _ => return None,
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_signals_as_people_write_them() {
        let check = |text: &str, number: Option<i32>| assert_eq!(signal_number(text), number, "{text}");
        check("SIGTERM", Some(15));
        check("quit", Some(3));
        check("SIGWINCH", Some(28));
        for text in ["9", "KILL", "SIGKILL", "sigkill", "kill"] {
            check(text, Some(9));
        }
        check("SIGRTMIN+3", Some(37));
        check("RTMAX-1", Some(63));
        for bad in ["", "SIG", "SIGNOPE", "0", "65", "RTMAX+1", "RTMINx"] {
            check(bad, None);
        }
    }
}

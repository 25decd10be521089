//! `user` of a service that runs as a local process.
//!
//! Root can run it as any user of this host, or as a number, as a container would. Every other user runs all services as
//! himself; a warning says so if the file asks for another user. A Dockerfile's USER counts if `user` is missing, but it
//! names a user of the image: one that this host doesn't know is no error.

use std::path::PathBuf;

use keel_compose::{Service, Spanned};
use keel_diag::Diagnostic;
use keel_model::ProcessUser;
use keel_sys::user::{Account, group_by_name, groups_of, user_by_id, user_by_name};

/// Whom a service runs as; `None` if it can't run at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RunAs {
    /// As Evenkeel does.
    Ourselves,
    /// As this user.
    Other(ProcessUser),
}

/// Finds out whom a service runs as.
pub(super) fn run_as(service: &Service, diagnostics: &mut Vec<Diagnostic>) -> Option<RunAs> {
    let Some(wanted) = &service.user else { return built_for(service, diagnostics) };
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let found = resolve(&wanted.value, &service.confinement.group_add);
    match found {
        Ok(user) if is_us(&user) => Some(RunAs::Ourselves),
        Ok(user) if uid == 0 => Some(RunAs::Other(user)),
        Err(missing) if uid == 0 => {
            diagnostics.push(
                Diagnostic::error("process::user", format!("this host has no {missing}"))
                    .at(wanted.span, format!("`{}` would run as root instead", service.name.value))
                    .help("create it, or write a number: `user: \"1000:1000\"`"),
            );
            None
        }
        _ => {
            diagnostics.push(not_ours(wanted, &service.name.value, (uid, gid)));
            Some(RunAs::Ourselves)
        }
    }
}

/// Whether a user is the one that Evenkeel runs as. What another user than root is besides can't be changed.
fn is_us(user: &ProcessUser) -> bool {
    if user.uid != rustix::process::geteuid().as_raw() {
        return false;
    }
    let mut ours = rustix::process::getgroups().unwrap_or_default();
    ours.push(rustix::process::getegid());
    let is_ours = |group: &u32| ours.iter().any(|our| our.as_raw() == *group);
    user.uid != 0 || (user.gid == 0 && user.groups.iter().all(is_ours))
}

/// Finds out whom the Dockerfile's USER stands for here.
fn built_for(service: &Service, diagnostics: &mut Vec<Diagnostic>) -> Option<RunAs> {
    let more = &service.confinement.group_add;
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let Some(wanted) = service.dockerfile.as_ref().and_then(|dockerfile| dockerfile.user.as_ref()) else {
        return match resolve(&uid.to_string(), more) {
            // Root's own groups are whatever this host gave it: without `group_add` there is nothing to change.
            Ok(user) if uid == 0 && !more.is_empty() && !is_us(&user) => Some(RunAs::Other(user)),
            Err(missing) if uid == 0 => {
                diagnostics.push(
                    Diagnostic::error("process::user", format!("this host has no {missing}"))
                        .at(service.name.span, "it is in its `group_add`")
                        .help("create it, or write a number"),
                );
                None
            }
            _ => Some(RunAs::Ourselves),
        };
    };
    match resolve(&wanted.value, more) {
        Ok(user) if is_us(&user) => return Some(RunAs::Ourselves),
        Ok(user) if uid == 0 => return Some(RunAs::Other(user)),
        Ok(_) => diagnostics.push(not_ours(wanted, &service.name.value, (uid, gid))),
        Err(missing) => {
            let message = format!(
                "`{}` runs as the user who runs Evenkeel, not as `{}`",
                service.name.value, wanted.value
            );
            diagnostics.push(
                Diagnostic::warning("process::user", message)
                    .at(wanted.span, format!("this host has no {missing}"))
                    .help("create it, or write `user:` in the Compose file"),
            );
        }
    }
    Some(RunAs::Ourselves)
}

fn not_ours(wanted: &Spanned<String>, service: &str, (uid, gid): (u32, u32)) -> Diagnostic {
    let message = format!("`{service}` runs as {uid}:{gid}, not as `{}`", wanted.value);
    Diagnostic::warning("process::user", message)
        .at(wanted.span, "only root can run it as somebody else")
        .help("start Evenkeel as root, or leave `user` out")
}

/// Reads `USER[:GROUP]`, names or numbers.
fn resolve(text: &str, more: &[String]) -> Result<ProcessUser, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    // As in Docker: `${UID}:${GID}`, both unset, is whom the container would be, which is root.
    let user = if user.is_empty() { "0" } else { user };
    let by_number = number(user);
    let account: Option<Account> = match by_number {
        Some(uid) => user_by_id(uid).ok().flatten(),
        None => Some(user_by_name(user).ok().flatten().ok_or_else(|| format!("user `{user}`"))?),
    };
    // A number that nobody has is its own group: the image's default, 0, is root's here.
    let uid = account.as_ref().map(|account| account.uid).or(by_number).unwrap_or_default();
    let own = account.as_ref().map_or(uid, |account| account.gid);
    let gid = group.map_or(Ok(own), group_number)?;
    // As in Docker a group that is named is the only one.
    let mut groups = match (&account, group) {
        (Some(account), None) => groups_of(&account.name, gid).unwrap_or_else(|_| vec![gid]),
        _ => vec![gid],
    };
    for name in more {
        groups.push(group_number(name)?);
    }
    groups.sort_unstable();
    groups.dedup();
    let home = account.as_ref().map(|account| account.home.clone()).filter(|home| !home.is_empty());
    let home = home.map_or_else(|| PathBuf::from("/"), PathBuf::from);
    Ok(ProcessUser { name: account.map(|account| account.name), home, uid, gid, groups })
}

/// Reads a number; the highest one stands for none in the kernel.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number != u32::MAX)
}

fn group_number(group: &str) -> Result<u32, String> {
    let named = || group_by_name(group).ok().flatten();
    number(group).or_else(named).ok_or_else(|| format!("group `{group}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_numbers() {
        let ids = |text: &str| {
            let user = resolve(text, &[]);
            user.map(|user| (user.uid, user.gid, user.home.to_string_lossy().into_owned()))
        };
        assert_eq!(ids("root"), Ok((0, 0, "/root".into())));
        assert_eq!(ids("0:4321"), Ok((0, 4321, "/root".into())));
        assert_eq!(ids("root:"), Ok((0, 0, "/root".into())));
        assert_eq!(ids("76543"), Ok((76543, 76543, "/".into())));
        assert_eq!(ids("76543:root"), Ok((76543, 0, "/".into())));
        assert_eq!(ids("4294967295"), Err("user `4294967295`".into()));
        assert_eq!(ids("no-such-user"), Err("user `no-such-user`".into()));
        assert_eq!(ids("0:no-such-group"), Err("group `no-such-group`".into()));
        assert_eq!(resolve("76543:1", &["99".into(), "root".into()]).unwrap().groups, [0, 1, 99]);
    }
}

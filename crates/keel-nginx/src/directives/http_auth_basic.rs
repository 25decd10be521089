//! ngx_http_auth_basic_module: who may come in, by name and password.

use keel_model::AuthUserFile;

use crate::{
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "auth_basic",
        syntax: "realm | off",
        contexts: Contexts::HTTP_ALL.or(Contexts::LIMIT_EXCEPT),
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Asks for a name and a password of `auth_basic_user_file` (HTTP Basic), with this realm, which may hold \
              variables. 401 for those who have none. `satisfy` says what that means beside `allow` and `deny`.",
        set: Setter::Simple(|reader, directive| {
            reader.once(
                directive,
                |frame| &mut frame.scope.auth_basic.realm,
                |reader, directive| {
                    let realm = reader.template_arg(directive)?;
                    Some(Some(realm).filter(|realm| realm.as_literal() != Some("off")))
                },
            );
        }),
    },
    Row {
        name: "auth_basic_user_file",
        syntax: "file",
        contexts: Contexts::HTTP_ALL.or(Contexts::LIMIT_EXCEPT),
        arity: Arity::ONE,
        default: None,
        doc: "Users and passwords, as `htpasswd` writes them: `user:password` on each line, the password as `$apr1$`, \
              `{SHA}`, `{SSHA}`, `{PLAIN}`, or of crypt(3) DES, `$1$`, `$2a$`, `$2b$`, `$2y$`, `$5$`, `$6$`. A relative path \
              begins beside the configuration file; variables are allowed. A change of the file counts from the next request \
              on. A missing file is answered with 403, another failure with 500. Schemes that take long are verified \
              apart from the workers; a password that was right is known for ten seconds, and with 1,024 waiting to \
              be verified others are answered with 503.",
        set: Setter::Simple(|reader, directive| {
            reader.once(
                directive,
                |frame| &mut frame.scope.auth_basic.user_file,
                |reader: &mut Reader<'_>, directive| {
                    let path = reader.template_arg(directive)?;
                    Some(AuthUserFile { path, folder: reader.conf_folder.to_owned() })
                },
            );
        }),
    },
];

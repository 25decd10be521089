//! Services whose `ports` are balanced without an nginx.conf.
//!
//! Evenkeel writes the nginx.conf that such a service needs and reads it like any other: `evenkeel config` shows it, and
//! it is a start for users who want to change something. Under Docker a port is plain TCP: nothing limits bodies or
//! holds responses back, and WebSockets pass; so it is here. Forwarding fields are overwritten: a client's own can't be
//! trusted where nobody has said so, whichever of the names that frameworks read it has.

use std::fmt::Write;

/// One published port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectPort {
    /// The service.
    pub service: String,
    /// The port in the container.
    pub target: u16,
    /// What `listen` says, an address each: `0.0.0.0:8080`.
    pub listen: Vec<String>,
}

/// Writes the configuration for these ports.
pub fn direct_configuration(ports: &[DirectPort]) -> String {
    let mut text = String::from(
        "# Written by Evenkeel: services with published ports and no nginx.conf of their own.\n\
         events { worker_connections 4096; }\n\
         http {\n    \
             access_log off;\n    \
             map $http_upgrade $evenkeel_connection { default upgrade; '' ''; }\n",
    );
    let mut upstreams: Vec<(&str, u16)> = Vec::new();
    for port in ports {
        let DirectPort { service, target, listen } = port;
        if !upstreams.contains(&(service, *target)) {
            upstreams.push((service, *target));
            // Writing to a String can't fail.
            _ = writeln!(text, "    upstream {service}-{target} {{ server {service}:{target}; }}");
        }
        let listen: String = listen.iter().map(|address| format!("        listen {address};\n")).collect();
        _ = write!(
            text,
            "    server {{\n{listen}        \
                 client_max_body_size 0;\n        \
                 location / {{\n            \
                     proxy_pass http://{service}-{target};\n            \
                     proxy_http_version 1.1;\n            \
                     proxy_set_header Host $http_host;\n            \
                     proxy_set_header Connection $evenkeel_connection;\n            \
                     proxy_set_header Upgrade $http_upgrade;\n            \
                     proxy_set_header Forwarded '';\n            \
                     proxy_set_header X-Forwarded* '';\n            \
                     proxy_set_header X-Original-* '';\n            \
                     proxy_set_header X-Client-IP '';\n            \
                     proxy_set_header X-Cluster-Client-IP '';\n            \
                     proxy_set_header True-Client-IP '';\n            \
                     proxy_set_header Front-End-Https '';\n            \
                     proxy_set_header X-Real-IP $remote_addr;\n            \
                     proxy_set_header X-Forwarded-For $remote_addr;\n            \
                     proxy_set_header X-Forwarded-Proto $scheme;\n            \
                     proxy_set_header X-Forwarded-Host $http_host;\n            \
                     proxy_redirect off;\n            \
                     proxy_buffering off;\n            \
                     proxy_request_buffering off;\n            \
                     proxy_read_timeout 1h;\n            \
                     proxy_send_timeout 1h;\n        \
                 }}\n    }}\n"
        );
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use keel_diag::Sources;
    use std::{
        io,
        path::{Path, PathBuf},
    };

    use super::*;

    struct Memory(String);

    impl keel_nginx::Files for Memory {
        fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
            Ok(self.0.clone().into_bytes())
        }
        fn glob(&self, _: &Path) -> Vec<PathBuf> {
            Vec::new()
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let ports = [
            DirectPort { service: "web".into(), target: 5000, listen: vec!["0.0.0.0:8080".into()] },
            DirectPort { service: "web".into(), target: 5000, listen: vec!["127.0.0.1:8081".into()] },
            DirectPort { service: "api".into(), target: 80, listen: vec!["[::]:8082".into()] },
        ];
        let options = keel_nginx::Options {
            prefix: "/p".into(),
            conf_path: "/p/nginx.conf".into(),
            globals: Vec::new(),
        };
        let mut sources = Sources::default();
        let loaded = keel_nginx::load(&options, &Memory(direct_configuration(&ports)), &mut sources);
        assert_eq!(loaded.diagnostics, []);
        let configuration = loaded.configuration.expect("has no error");
        assert_eq!(configuration.plan.listeners.len(), 3);
        let names: Vec<_> = configuration.upstreams.iter().map(|u| u.name.0.as_str()).collect();
        assert_eq!(names, ["web-5000", "api-80"]);
    }

    #[test]
    fn no_word_of_a_client_about_where_it_came_from_passes() {
        let ports = [DirectPort { service: "web".into(), target: 80, listen: vec!["0.0.0.0:8080".into()] }];
        let text = direct_configuration(&ports);
        for name in ["Forwarded", "X-Forwarded*", "X-Original-*", "X-Client-IP", "True-Client-IP"] {
            assert!(text.contains(&format!("proxy_set_header {name} '';")), "{name} in {text}");
        }
        for (name, value) in [
            ("X-Real-IP", "$remote_addr"),
            ("X-Forwarded-For", "$remote_addr"),
            ("X-Forwarded-Proto", "$scheme"),
            ("X-Forwarded-Host", "$http_host"),
        ] {
            assert!(text.contains(&format!("proxy_set_header {name} {value};")), "{name} in {text}");
        }
    }
}

//! The directives of nginx that have no effect here yet, each with what that means.
//!
//! They are known so that they are never called misspelt, and so that nobody finds out in production: what would give
//! somebody another response is an error, what loses something else is a warning, said once in a run. What only tunes
//! nginx is silent, and so is a directive that acts only beside another, as that other one is reported. The arguments
//! are checked as nginx checks them, whatever the effect.

mod checks;
mod signatures;
mod table;

pub(crate) use checks::{CacheZones, check_cache_zones};
use keel_diag::Diagnostic;

use crate::{ast::Directive, reader::Reader, registry::Contexts};

/// What it means that a directive has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Somebody would get something else: this.
    Differs(&'static str),
    /// Every response stays correct; this changes.
    Harmless(&'static str),
    /// Nothing changes and nothing is lost: it tunes what Evenkeel does in another way.
    Tuning,
    /// It acts only beside this, which is reported where it stands.
    Companion(&'static str),
    /// It belongs into these blocks, which are reported and not read.
    Inside(&'static str),
}

struct Group {
    effect: Effect,
    names: &'static [&'static str],
}

/// A directive without effect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Its name.
    pub(crate) name: &'static str,
    /// What its having no effect means.
    pub(crate) effect: Effect,
}

/// Finds a directive by its name.
pub(crate) fn find(name: &str) -> Option<Entry> {
    entries().find(|entry| entry.name == name)
}

/// Gives all directives without effect.
pub(crate) fn entries() -> impl Iterator<Item = Entry> {
    GROUPS.iter().flat_map(|group| group.names.iter().map(|name| Entry { name, effect: group.effect }))
}

/// Gives their names.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    entries().map(|entry| entry.name)
}

/// Gives the blocks that nginx allows a directive of these in, where that is known.
pub(crate) fn contexts(name: &str) -> impl Iterator<Item = Contexts> {
    signatures::contexts(name)
}

/// Directives that differ when they are `off`, where all others then ask for nothing.
const OFF_DIFFERS: [&str; 1] = ["chunked_transfer_encoding"];

/// Reads a directive without effect: refuses what nginx would refuse, else says what its having none means.
pub(crate) fn read(reader: &mut Reader<'_>, entry: Entry, directive: &Directive) {
    if signatures::check(reader, directive) {
        reader.diagnostics.extend(entry.diagnose(directive));
    }
    excuse_variables(reader, directive);
}

impl Entry {
    /// Tells whether `off` would be a name to this directive, as any other word.
    fn takes_a_name(self, directive: &Directive) -> bool {
        let names = ["least_time", "limit_conn", "limit_req"];
        directive.block.is_some() || self.name.ends_with("_pass") || names.contains(&self.name)
    }

    /// Says what using it means; nothing if it asks for what holds anyway.
    fn diagnose(self, directive: &Directive) -> Option<Diagnostic> {
        let name = self.name;
        let sole = (directive.args.len() == 1).then(|| directive.arg(0));
        if let Effect::Inside(blocks) = self.effect {
            return Some(misplaced(directive, blocks));
        }
        let nothing = match sole {
            Some("off") => !OFF_DIFFERS.contains(&name) && !self.takes_a_name(directive),
            Some("on") => OFF_DIFFERS.contains(&name),
            Some("0") => name.starts_with("limit_rate"),
            _ => false,
        };
        let code = "nginx::unsupported-directive";
        match self.effect {
            _ if nothing => None,
            Effect::Tuning | Effect::Companion(_) | Effect::Inside(_) => None,
            Effect::Differs(effect) => Some(
                Diagnostic::error(code, format!("`{name}` is not supported yet"))
                    .at(directive.span(), effect),
            ),
            Effect::Harmless(effect) => {
                let (code, message) = match name {
                    "http2" => ("nginx::unsupported-http2", "HTTP/2 is not there yet".to_owned()),
                    "http3" | "http3_hq" => {
                        ("nginx::unsupported-http3", "HTTP/3 is not there yet".to_owned())
                    }
                    _ => (code, format!("`{name}` has no effect")),
                };
                Some(Diagnostic::warning(code, message).at(directive.span(), effect).once_per_run())
            }
        }
    }
}

fn misplaced(directive: &Directive, blocks: &str) -> Diagnostic {
    let name = &directive.name.text;
    Diagnostic::error("nginx::misplaced-directive", format!("`{name}` is not allowed here"))
        .at(directive.name.span, "not a directive of this block")
        .help(format!("it may stand in: {blocks}"))
        .nginx(format!("\"{name}\" directive is not allowed here"))
}

/// Notes the variables that a directive without effect would define, so that their use isn't reported on top.
fn excuse_variables(reader: &mut Reader<'_>, directive: &Directive) {
    let defines = ["set", "geo", "split_clients", "js_set", "js_var", "perl_set", "keyval", "num_map"];
    let inside = directive.block.iter().flatten();
    for inner in inside {
        excuse_variables(reader, inner);
    }
    if !defines.contains(&directive.name.text.as_str()) {
        return;
    }
    let names = directive.args.iter().filter_map(|word| word.text.strip_prefix('$'));
    let names: Vec<String> = names.map(str::to_ascii_lowercase).collect();
    reader.http.names.excused.extend(names);
}

#[rustfmt::skip]
const GROUPS: &[Group] = &[
    Group {
        effect: Effect::Differs("requests would be answered by the wrong place or not rewritten"),
        names: &[
            "break", "if", "internal_redirect", "limit_except", "rewrite", "set",
        ],
    },
    Group {
        effect: Effect::Differs("clients without credentials would get in"),
        names: &[
            "access_by_lua_block", "access_by_lua_file", "auth_basic", "auth_jwt", "auth_oidc",
            "js_access", "secure_link", "secure_link_hash", "secure_link_secret",
            "valid_referers",
        ],
    },
    Group {
        effect: Effect::Differs("requests beyond the limit would get through"),
        names: &[
            "limit_conn", "limit_req", "limit_zone",
        ],
    },
    Group {
        effect: Effect::Differs("responses would be sent without being slowed down"),
        names: &[
            "auth_delay", "limit_rate", "limit_rate_after", "proxy_limit_rate",
        ],
    },
    Group {
        effect: Effect::Differs("responses would have another body"),
        names: &[
            "add_after_body", "add_before_body", "addition_types", "body_filter_by_lua_block", "f4f", "flv",
            "hls", "image_filter", "js_body_filter", "mp4", "slice", "ssi", "sub_filter", "xml_entities",
            "xslt_stylesheet",
        ],
    },
    Group {
        effect: Effect::Differs("responses would have other fields"),
        names: &[
            "charset", "charset_map", "early_hints", "header_filter_by_lua_block", "js_header_filter",
            "more_clear_headers", "more_set_headers", "more_set_input_headers", "override_charset",
            "proxy_cookie_domain", "proxy_cookie_flags", "proxy_cookie_path",
            "source_charset", "userid", "userid_service",
        ],
    },
    Group {
        effect: Effect::Differs("requests here would be answered with files instead"),
        names: &[
            "api", "autoindex", "content_by_lua_block", "content_by_lua_file",
            "dav_methods", "echo", "empty_gif", "fastcgi_pass", "fastcgi_store", "grpc_pass",
            "js_content", "memcached_pass", "perl", "post_action", "proxy_store", "random_index",
            "rewrite_by_lua_block", "rewrite_by_lua_file", "scgi_pass", "scgi_store", "status",
            "stub_status", "tunnel_pass", "uwsgi_pass", "uwsgi_store",
        ],
    },
    Group {
        effect: Effect::Differs("the variables it defines would have no value"),
        names: &[
            "geo", "geoip2", "geoip_city", "geoip_country", "geoip_org", "js_set",
            "js_var", "keyval", "num_map", "perl_set", "set_by_lua_block", "split_clients",
        ],
    },
    Group {
        effect: Effect::Differs("requests would go to other peers"),
        names: &[
            "balancer_by_lua_block", "hash", "health_check", "js_filter", "js_preread", "least_time",
            "match", "ntlm", "queue", "state", "sticky", "sticky_cookie_insert",
        ],
    },
    Group {
        effect: Effect::Differs("peers would be reached from another address"),
        names: &[
            "proxy_bind",
        ],
    },
    Group {
        effect: Effect::Differs("nothing in it would be served"),
        names: &[
            "mail", "stream",
        ],
    },
    Group {
        effect: Effect::Differs("files behind symbolic links would be sent"),
        names: &[
            "disable_symlinks",
        ],
    },
    Group {
        effect: Effect::Differs("responses to HTTP/1.1 clients would be framed in another way"),
        names: &[
            "chunked_transfer_encoding",
        ],
    },
    Group {
        effect: Effect::Differs("request bodies would not be kept"),
        names: &[
            "client_body_in_file_only",
        ],
    },
    Group {
        effect: Effect::Harmless("responses are sent uncompressed"),
        names: &[
            "brotli", "brotli_static", "gunzip", "gzip", "gzip_static", "zstd",
        ],
    },
    Group {
        effect: Effect::Harmless("every response comes from a peer"),
        names: &[
            "proxy_cache",
        ],
    },
    Group {
        effect: Effect::Harmless("clients are answered in HTTP/1.1"),
        names: &[
            "http2", "http3", "http3_hq",
        ],
    },
    Group {
        effect: Effect::Harmless("the module is not loaded; its directives are named one by one"),
        names: &[
            "google_perftools_profiles", "init_by_lua_block", "init_worker_by_lua_block", "js_engine",
            "js_import", "load_module", "perl_modules", "perl_require",
        ],
    },
    Group {
        effect: Effect::Harmless("names that only a request shows are not looked up; those in `upstream` and `proxy_pass` are"),
        names: &[
            "resolver", "resolver_timeout",
        ],
    },
    Group {
        effect: Effect::Harmless("nothing is recorded"),
        names: &[
            "log_by_lua_block", "otel_exporter", "otel_service_name", "otel_span_attr",
            "otel_span_name", "otel_trace", "otel_trace_context", "session_log", "session_log_format",
            "session_log_zone", "status_format", "status_zone",
        ],
    },
    Group {
        effect: Effect::Harmless("the server's identity is its own"),
        names: &[
            "license_token", "mgmt", "zone_sync", "zone_sync_buffers", "zone_sync_server",
        ],
    },
    Group {
        effect: Effect::Tuning,
        names: &[
            "accept_mutex", "accept_mutex_delay", "acceptex_read", "aio", "aio_write",
            "client_body_early_read", "client_body_in_single_buffer", "connection_pool_size",
            "devpoll_changes", "devpoll_events", "directio", "directio_alignment", "epoll_events",
            "iocp_threads", "kqueue_changes", "kqueue_events", "map_hash_bucket_size", "map_hash_max_size",
            "multi_accept", "open_file_cache", "open_file_cache_errors", "open_file_cache_events",
            "open_file_cache_min_uses", "open_file_cache_valid", "open_log_file_cache", "output_buffers",
            "pcre_jit", "post_acceptex", "postpone_output", "proxy_headers_hash_bucket_size",
            "proxy_headers_hash_max_size", "proxy_send_lowat", "proxy_socket_rcvbuf", "proxy_socket_sndbuf",
            "quic_bpf", "read_ahead", "referer_hash_bucket_size", "referer_hash_max_size",
            "request_pool_size", "send_lowat", "sendfile_max_chunk", "server_names_hash_bucket_size",
            "server_names_hash_max_size", "subrequest_output_buffer_size", "thread_pool",
            "timer_resolution", "types_hash_bucket_size", "types_hash_max_size",
            "uninitialized_variable_warn", "use", "variables_hash_bucket_size", "variables_hash_max_size",
            "worker_aio_requests", "worker_cpu_affinity",
        ],
    },
    Group {
        effect: Effect::Harmless("no debug log is written"),
        names: &["debug_connection"],
    },
    Group {
        effect: Effect::Harmless("old browsers get what everybody gets"),
        names: &["msie_refresh"],
    },
    Group {
        effect: Effect::Harmless("the data plane keeps the priority that it is started with"),
        names: &["worker_priority"],
    },
    Group {
        effect: Effect::Harmless("the data plane leaves no core file"),
        names: &["debug_points", "worker_rlimit_core"],
    },
    Group {
        effect: Effect::Harmless("requests are served as long as there is memory"),
        names: &["degradation"],
    },
    Group {
        effect: Effect::Companion("worker_rlimit_core, degradation, rewrite or keyval"),
        names: &["degrade", "keyval_zone", "rewrite_log", "working_directory"],
    },
    Group {
        effect: Effect::Companion("gzip"),
        names: &[
            "brotli_buffers", "brotli_comp_level", "brotli_min_length", "brotli_types", "brotli_window",
            "gunzip_buffers", "gzip_buffers", "gzip_comp_level", "gzip_disable", "gzip_hash",
            "gzip_http_version", "gzip_min_length", "gzip_no_buffer", "gzip_proxied", "gzip_types",
            "gzip_vary", "gzip_window", "postpone_gzipping",
        ],
    },
    Group {
        effect: Effect::Companion("proxy_cache"),
        names: &[
            "proxy_cache_background_update", "proxy_cache_bypass", "proxy_cache_convert_head",
            "proxy_cache_key", "proxy_cache_lock", "proxy_cache_lock_age", "proxy_cache_lock_timeout",
            "proxy_cache_max_range_offset", "proxy_cache_methods", "proxy_cache_min_uses",
            "proxy_cache_path", "proxy_cache_purge", "proxy_cache_revalidate", "proxy_cache_use_stale",
            "proxy_cache_valid", "proxy_no_cache",
        ],
    },
    Group {
        effect: Effect::Companion("a `listen` with `ssl` or `quic`, or a `proxy_pass` to `https://`"),
        names: &[
            "acme_certificate", "acme_issuer", "acme_shared_zone", "http2_body_preread_size",
            "http2_chunk_size", "http2_idle_timeout", "http2_max_concurrent_pushes",
            "http2_max_concurrent_streams", "http2_max_field_size", "http2_max_header_size",
            "http2_max_requests", "http2_pool_size", "http2_push", "http2_push_preload",
            "http2_recv_buffer_size", "http2_recv_timeout", "http2_streams_index_size",
            "http3_max_concurrent_streams", "http3_stream_buffer_size", "proxy_ssl", "proxy_ssl_alpn",
            "proxy_ssl_certificate", "proxy_ssl_certificate_cache", "proxy_ssl_certificate_key",
            "proxy_ssl_ciphers", "proxy_ssl_conf_command", "proxy_ssl_crl", "proxy_ssl_name",
            "proxy_ssl_password_file", "proxy_ssl_protocols", "proxy_ssl_server_name",
            "proxy_ssl_session_reuse", "proxy_ssl_trusted_certificate", "proxy_ssl_verify",
            "proxy_ssl_verify_depth", "quic_active_connection_id_limit", "quic_gso", "quic_host_key",
            "quic_retry", "ssl", "ssl_alpn", "ssl_buffer_size", "ssl_certificate", "ssl_certificate_cache",
            "ssl_certificate_compression", "ssl_certificate_key", "ssl_ciphers", "ssl_client_certificate",
            "ssl_conf_command", "ssl_crl", "ssl_dhparam", "ssl_dyn_rec_enable", "ssl_early_data",
            "ssl_ecdh_curve", "ssl_ech_file", "ssl_engine", "ssl_handshake_timeout",
            "ssl_object_cache_inheritable", "ssl_ocsp", "ssl_ocsp_cache", "ssl_ocsp_responder",
            "ssl_password_file", "ssl_prefer_server_ciphers", "ssl_preread", "ssl_protocols",
            "ssl_reject_handshake", "ssl_session_cache", "ssl_session_ticket_key", "ssl_session_tickets",
            "ssl_session_timeout", "ssl_stapling", "ssl_stapling_file", "ssl_stapling_responder",
            "ssl_stapling_verify", "ssl_trusted_certificate", "ssl_verify_client", "ssl_verify_depth",
            "starttls",
        ],
    },
    Group {
        effect: Effect::Companion("auth_basic or auth_jwt"),
        names: &[
            "auth_basic_user_file", "auth_jwt_claim_set", "auth_jwt_header_set", "auth_jwt_key_cache",
            "auth_jwt_key_file", "auth_jwt_key_request", "auth_jwt_leeway", "auth_jwt_require",
            "auth_jwt_type", "oidc_provider",
        ],
    },
    Group {
        effect: Effect::Companion("limit_req or limit_conn"),
        names: &[
            "limit_conn_dry_run", "limit_conn_log_level", "limit_conn_status", "limit_conn_zone",
            "limit_req_dry_run", "limit_req_log_level", "limit_req_status", "limit_req_zone",
        ],
    },
    Group {
        effect: Effect::Companion("the filter that it belongs to"),
        names: &[
            "charset_types", "f4f_buffer_size", "hls_buffers", "hls_forward_args", "hls_fragment",
            "hls_mp4_buffer_size", "hls_mp4_max_buffer_size", "image_filter_buffer",
            "image_filter_interlace", "image_filter_jpeg_quality", "image_filter_sharpen",
            "image_filter_transparency", "image_filter_webp_quality",
            "mp4_buffer_size", "mp4_max_buffer_size", "mp4_start_key_frame", "secure_link_md5",
            "ssi_ignore_recycled_buffers", "ssi_last_modified", "ssi_min_file_chunk", "ssi_silent_errors",
            "ssi_types", "ssi_value_length", "sub_filter_last_modified", "sub_filter_once",
            "sub_filter_types", "userid_domain", "userid_expires", "userid_flags", "userid_mark",
            "userid_name", "userid_p3p", "userid_path", "xml_external_entities", "xslt_last_modified",
            "xslt_param", "xslt_string_param", "xslt_types",
        ],
    },
    Group {
        effect: Effect::Companion("autoindex or dav_methods"),
        names: &[
            "autoindex_exact_size", "autoindex_format", "autoindex_localtime", "create_full_put_path",
            "dav_access", "min_delete_depth",
        ],
    },
    Group {
        effect: Effect::Companion("fastcgi_pass and its like"),
        names: &[
            "fastcgi_bind", "fastcgi_buffer_size", "fastcgi_buffering", "fastcgi_buffers",
            "fastcgi_busy_buffers_size", "fastcgi_cache", "fastcgi_cache_background_update",
            "fastcgi_cache_bypass", "fastcgi_cache_key", "fastcgi_cache_lock", "fastcgi_cache_lock_age",
            "fastcgi_cache_lock_timeout", "fastcgi_cache_max_range_offset", "fastcgi_cache_methods",
            "fastcgi_cache_min_uses", "fastcgi_cache_path", "fastcgi_cache_purge",
            "fastcgi_cache_revalidate", "fastcgi_cache_use_stale", "fastcgi_cache_valid",
            "fastcgi_catch_stderr", "fastcgi_connect_timeout", "fastcgi_force_ranges",
            "fastcgi_hide_header", "fastcgi_ignore_client_abort", "fastcgi_ignore_headers", "fastcgi_index",
            "fastcgi_intercept_errors", "fastcgi_keep_conn", "fastcgi_limit_rate",
            "fastcgi_max_temp_file_size", "fastcgi_next_upstream", "fastcgi_next_upstream_timeout",
            "fastcgi_next_upstream_tries", "fastcgi_no_cache", "fastcgi_param", "fastcgi_pass_header",
            "fastcgi_pass_request_body", "fastcgi_pass_request_headers", "fastcgi_read_timeout",
            "fastcgi_request_buffering", "fastcgi_send_lowat", "fastcgi_send_timeout",
            "fastcgi_socket_keepalive", "fastcgi_socket_rcvbuf", "fastcgi_socket_sndbuf",
            "fastcgi_split_path_info", "fastcgi_store_access", "fastcgi_temp_file_write_size",
            "fastcgi_temp_path", "grpc_bind", "grpc_buffer_size", "grpc_connect_timeout",
            "grpc_hide_header", "grpc_ignore_headers", "grpc_intercept_errors", "grpc_next_upstream",
            "grpc_next_upstream_timeout", "grpc_next_upstream_tries", "grpc_pass_header",
            "grpc_read_timeout", "grpc_send_timeout", "grpc_set_header", "grpc_socket_keepalive",
            "grpc_socket_rcvbuf", "grpc_socket_sndbuf", "grpc_ssl_certificate",
            "grpc_ssl_certificate_cache", "grpc_ssl_certificate_key", "grpc_ssl_ciphers",
            "grpc_ssl_conf_command", "grpc_ssl_crl", "grpc_ssl_name", "grpc_ssl_password_file",
            "grpc_ssl_protocols", "grpc_ssl_server_name", "grpc_ssl_session_reuse",
            "grpc_ssl_trusted_certificate", "grpc_ssl_verify", "grpc_ssl_verify_depth", "memcached_bind",
            "memcached_buffer_size", "memcached_connect_timeout", "memcached_gzip_flag",
            "memcached_next_upstream", "memcached_next_upstream_timeout", "memcached_next_upstream_tries",
            "memcached_read_timeout", "memcached_send_timeout", "memcached_socket_keepalive",
            "proxy_store_access", "scgi_bind", "scgi_buffer_size", "scgi_buffering", "scgi_buffers",
            "scgi_busy_buffers_size", "scgi_cache", "scgi_cache_background_update", "scgi_cache_bypass",
            "scgi_cache_key", "scgi_cache_lock", "scgi_cache_lock_age", "scgi_cache_lock_timeout",
            "scgi_cache_max_range_offset", "scgi_cache_methods", "scgi_cache_min_uses", "scgi_cache_path",
            "scgi_cache_purge", "scgi_cache_revalidate", "scgi_cache_use_stale", "scgi_cache_valid",
            "scgi_connect_timeout", "scgi_force_ranges", "scgi_hide_header", "scgi_ignore_client_abort",
            "scgi_ignore_headers", "scgi_intercept_errors", "scgi_limit_rate", "scgi_max_temp_file_size",
            "scgi_next_upstream", "scgi_next_upstream_timeout", "scgi_next_upstream_tries", "scgi_no_cache",
            "scgi_param", "scgi_pass_header", "scgi_pass_request_body", "scgi_pass_request_headers",
            "scgi_read_timeout", "scgi_request_buffering", "scgi_send_timeout", "scgi_socket_keepalive",
            "scgi_socket_rcvbuf", "scgi_socket_sndbuf", "scgi_store_access", "scgi_temp_file_write_size",
            "scgi_temp_path", "tunnel_bind", "tunnel_buffer_size", "tunnel_connect_timeout",
            "tunnel_next_upstream", "tunnel_next_upstream_timeout", "tunnel_next_upstream_tries",
            "tunnel_read_timeout", "tunnel_send_lowat", "tunnel_send_timeout", "tunnel_socket_keepalive",
            "tunnel_socket_rcvbuf", "tunnel_socket_sndbuf", "uwsgi_bind", "uwsgi_buffer_size",
            "uwsgi_buffering", "uwsgi_buffers", "uwsgi_busy_buffers_size", "uwsgi_cache",
            "uwsgi_cache_background_update", "uwsgi_cache_bypass", "uwsgi_cache_key", "uwsgi_cache_lock",
            "uwsgi_cache_lock_age", "uwsgi_cache_lock_timeout", "uwsgi_cache_max_range_offset",
            "uwsgi_cache_methods", "uwsgi_cache_min_uses", "uwsgi_cache_path", "uwsgi_cache_purge",
            "uwsgi_cache_revalidate", "uwsgi_cache_use_stale", "uwsgi_cache_valid", "uwsgi_connect_timeout",
            "uwsgi_force_ranges", "uwsgi_hide_header", "uwsgi_ignore_client_abort", "uwsgi_ignore_headers",
            "uwsgi_intercept_errors", "uwsgi_limit_rate", "uwsgi_max_temp_file_size", "uwsgi_modifier1",
            "uwsgi_modifier2", "uwsgi_next_upstream", "uwsgi_next_upstream_timeout",
            "uwsgi_next_upstream_tries", "uwsgi_no_cache", "uwsgi_param", "uwsgi_pass_header",
            "uwsgi_pass_request_body", "uwsgi_pass_request_headers", "uwsgi_read_timeout",
            "uwsgi_request_buffering", "uwsgi_send_timeout", "uwsgi_socket_keepalive",
            "uwsgi_socket_rcvbuf", "uwsgi_socket_sndbuf", "uwsgi_ssl_certificate",
            "uwsgi_ssl_certificate_cache", "uwsgi_ssl_certificate_key", "uwsgi_ssl_ciphers",
            "uwsgi_ssl_conf_command", "uwsgi_ssl_crl", "uwsgi_ssl_name", "uwsgi_ssl_password_file",
            "uwsgi_ssl_protocols", "uwsgi_ssl_server_name", "uwsgi_ssl_session_reuse",
            "uwsgi_ssl_trusted_certificate", "uwsgi_ssl_verify", "uwsgi_ssl_verify_depth",
            "uwsgi_store_access", "uwsgi_string", "uwsgi_temp_file_write_size", "uwsgi_temp_path",
        ],
    },
    Group {
        effect: Effect::Companion("the directive or module that it belongs to"),
        names: &[
            "ancient_browser", "ancient_browser_value", "geoip_proxy", "geoip_proxy_recursive",
            "js_context_reuse", "js_fetch_buffer_size", "js_fetch_ciphers",
            "js_fetch_max_response_buffer_size", "js_fetch_protocols", "js_fetch_timeout",
            "js_fetch_trusted_certificate", "js_fetch_verify", "js_fetch_verify_depth", "js_path",
            "js_periodic", "js_preload_object", "js_shared_dict_zone", "lua_code_cache", "lua_package_path",
            "lua_shared_dict", "modern_browser", "modern_browser_value",
        ],
    },
    Group {
        effect: Effect::Inside("mail, stream"),
        names: &[
            "auth_http", "auth_http_header", "auth_http_pass_client_cert", "auth_http_timeout", "imap_auth",
            "imap_capabilities", "imap_client_buffer", "max_errors", "pass", "pop3_auth",
            "pop3_capabilities", "preread_buffer_size", "preread_timeout", "protocol", "proxy",
            "proxy_buffer", "proxy_download_rate", "proxy_downstream_buffer", "proxy_half_close",
            "proxy_pass_error_message", "proxy_protocol", "proxy_protocol_timeout", "proxy_requests",
            "proxy_responses", "proxy_smtp_auth", "proxy_timeout", "proxy_upload_rate",
            "proxy_upstream_buffer", "smtp_auth", "smtp_capabilities", "smtp_client_buffer",
            "smtp_greeting_delay", "timeout", "xclient",
        ],
    },
];

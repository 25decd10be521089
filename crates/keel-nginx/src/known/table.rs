//! The signatures of nginx 1.31.5's directives that have no effect here, those that are alike together.

use super::{
    checks::{
        access, aio, bind, cache, cache_path, cache_valid, certificate_cache, cpu_affinity, directio,
        event_method, expressions, gateway_param, limit_req_zone, open_file_cache, pool_size, priority,
        split_path_info, ssl_session_cache, temp_path, thread_pool, userid_expires, userid_mark,
        zone_parameter,
    },
    signatures::{Body, Repeats, Signatures, Value},
};
use crate::{
    directives::resolver::check as resolver,
    registry::{Arity, Contexts},
};

#[rustfmt::skip]
pub(super) const SIGNATURES: &[Signatures] = &[
    Signatures {
        contexts: Contexts::EVENTS, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Checked(event_method),
        names: &["use"],
    },
    Signatures {
        contexts: Contexts::EVENTS, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Flag,
        names: &["accept_mutex", "acceptex_read", "multi_accept"],
    },
    Signatures {
        contexts: Contexts::EVENTS, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Milliseconds,
        names: &["accept_mutex_delay"],
    },
    Signatures {
        contexts: Contexts::EVENTS, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Number,
        names: &[
            "devpoll_changes", "devpoll_events", "epoll_events", "iocp_threads", "kqueue_changes",
            "kqueue_events", "post_acceptex", "worker_aio_requests",
        ],
    },
    Signatures {
        contexts: Contexts::EVENTS, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &["debug_connection"],
    },
    Signatures {
        contexts: Contexts::HTTP, arity: Arity::AtLeast(2), body: Body::Line, repeats: Repeats::Many,
        value: Value::Checked(cache_path),
        names: &["fastcgi_cache_path", "proxy_cache_path", "scgi_cache_path", "uwsgi_cache_path"],
    },
    Signatures {
        contexts: Contexts::HTTP, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Flag,
        names: &["geoip_proxy_recursive"],
    },
    Signatures {
        contexts: Contexts::HTTP, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Number,
        names: &[
            "map_hash_bucket_size", "map_hash_max_size", "server_names_hash_bucket_size",
            "server_names_hash_max_size", "variables_hash_bucket_size", "variables_hash_max_size",
        ],
    },
    Signatures {
        contexts: Contexts::HTTP, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Size,
        names: &["http2_recv_buffer_size"],
    },
    Signatures {
        contexts: Contexts::HTTP, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &["degradation", "geoip_proxy", "perl_modules", "perl_require"],
    },
    Signatures {
        contexts: Contexts::HTTP, arity: Arity::TWO, body: Body::Line, repeats: Repeats::Many,
        value: Value::Checked(zone_parameter),
        names: &["limit_conn_zone"],
    },
    Signatures {
        contexts: Contexts::HTTP, arity: Arity::TWO, body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &["perl_set"],
    },
    Signatures {
        contexts: Contexts::HTTP, arity: Arity::Take(1, 2), body: Body::Line, repeats: Repeats::Once,
        value: Value::Text,
        names: &["geoip_city", "geoip_country", "geoip_org"],
    },
    Signatures {
        contexts: Contexts::HTTP, arity: Arity::Take(3, 3), body: Body::Line, repeats: Repeats::Many,
        value: Value::Checked(limit_req_zone),
        names: &["limit_req_zone"],
    },
    Signatures {
        contexts: Contexts::HTTP_SERVER, arity: Arity::AtLeast(1), body: Body::Line, repeats: Repeats::Many,
        value: Value::Keywords(&["SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]),
        names: &["ssl_protocols"],
    },
    Signatures {
        contexts: Contexts::HTTP_SERVER, arity: Arity::AtLeast(1), body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &["client_body_early_read"],
    },
    Signatures {
        contexts: Contexts::HTTP_SERVER, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Checked(pool_size),
        names: &["connection_pool_size", "request_pool_size"],
    },
    Signatures {
        contexts: Contexts::HTTP_SERVER, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Flag,
        names: &[
            "http2", "http3", "http3_hq", "quic_gso", "quic_retry", "ssl_certificate_compression",
            "ssl_early_data", "ssl_prefer_server_ciphers", "ssl_reject_handshake", "ssl_session_tickets",
            "ssl_stapling", "ssl_stapling_verify",
        ],
    },
    Signatures {
        contexts: Contexts::HTTP_SERVER, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Keyword(&["off", "on", "leaf"]),
        names: &["ssl_ocsp"],
    },
    Signatures {
        contexts: Contexts::HTTP_SERVER, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Keyword(&["off", "on", "optional", "optional_no_ca"]),
        names: &["ssl_verify_client"],
    },
    Signatures {
        contexts: Contexts::HTTP_SERVER, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Number,
        names: &[
            "http2_max_concurrent_streams", "http2_streams_index_size", "http3_max_concurrent_streams",
            "quic_active_connection_id_limit", "ssl_verify_depth",
        ],
    },
    Signatures {
        contexts: Contexts::HTTP_SERVER, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Seconds,
        names: &["ssl_session_timeout"],
    },
    Signatures {
        contexts: Contexts::HTTP_SERVER, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Size,
        names: &["http2_body_preread_size", "http2_pool_size", "http3_stream_buffer_size", "ssl_buffer_size"],
    },
    Signatures {
        contexts: Contexts::HTTP_SERVER, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &[
            "http2_idle_timeout", "http2_max_concurrent_pushes", "http2_max_field_size",
            "http2_max_header_size", "http2_max_requests", "http2_recv_timeout", "ssl_certificate",
            "ssl_certificate_key", "ssl_ech_file", "ssl_session_ticket_key",
        ],
    },
    Signatures {
        contexts: Contexts::HTTP_SERVER, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Text,
        names: &[
            "quic_host_key", "ssl_ciphers", "ssl_client_certificate", "ssl_crl", "ssl_dhparam",
            "ssl_ecdh_curve", "ssl_ocsp_cache", "ssl_ocsp_responder", "ssl_password_file", "ssl_stapling_file",
            "ssl_stapling_responder", "ssl_trusted_certificate",
        ],
    },
    Signatures {
        contexts: Contexts::HTTP_SERVER, arity: Arity::TWO, body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &["ssl_conf_command"],
    },
    Signatures {
        contexts: Contexts::HTTP_SERVER, arity: Arity::Take(1, 2), body: Body::Line, repeats: Repeats::Many,
        value: Value::Checked(ssl_session_cache),
        names: &["ssl_session_cache"],
    },
    Signatures {
        contexts: Contexts::HTTP_SERVER, arity: Arity::Take(1, 3), body: Body::Line, repeats: Repeats::Once,
        value: Value::Checked(certificate_cache),
        names: &["ssl_certificate_cache"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::AtLeast(1), body: Body::Line, repeats: Repeats::Many,
        value: Value::Checked(cache_valid),
        names: &["fastcgi_cache_valid", "proxy_cache_valid", "scgi_cache_valid", "uwsgi_cache_valid"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::AtLeast(1), body: Body::Line, repeats: Repeats::Many,
        value: Value::Checked(expressions),
        names: &["gzip_disable"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::AtLeast(1), body: Body::Line, repeats: Repeats::Once,
        value: Value::Checked(resolver),
        names: &["resolver"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::AtLeast(1), body: Body::Line, repeats: Repeats::Many,
        value: Value::Keywords(&["GET", "HEAD", "POST"]),
        names: &["fastcgi_cache_methods", "proxy_cache_methods", "scgi_cache_methods", "uwsgi_cache_methods"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::AtLeast(1), body: Body::Line, repeats: Repeats::Many,
        value: Value::Keywords(&["SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]),
        names: &["grpc_ssl_protocols", "proxy_ssl_protocols", "uwsgi_ssl_protocols"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::AtLeast(1), body: Body::Line, repeats: Repeats::Many,
        value: Value::Keywords(&[
            "X-Accel-Redirect", "X-Accel-Expires", "X-Accel-Limit-Rate", "X-Accel-Buffering", "X-Accel-Charset",
            "Expires", "Cache-Control", "Set-Cookie", "Vary",
        ]),
        names: &["fastcgi_ignore_headers", "grpc_ignore_headers", "scgi_ignore_headers", "uwsgi_ignore_headers"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::AtLeast(1), body: Body::Line, repeats: Repeats::Many,
        value: Value::Keywords(&[
            "error", "timeout", "invalid_header", "non_idempotent", "http_500", "http_502", "http_503",
            "http_504", "http_403", "http_404", "http_429", "off",
        ]),
        names: &["grpc_next_upstream"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::AtLeast(1), body: Body::Line, repeats: Repeats::Many,
        value: Value::Keywords(&[
            "error", "timeout", "invalid_header", "non_idempotent", "http_500", "http_502", "http_503",
            "http_504", "http_403", "http_404", "http_429", "updating", "off",
        ]),
        names: &["proxy_cache_use_stale"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::AtLeast(1), body: Body::Line, repeats: Repeats::Many,
        value: Value::Keywords(&[
            "error", "timeout", "invalid_header", "non_idempotent", "http_500", "http_503", "http_403",
            "http_404", "http_429", "updating", "off",
        ]),
        names: &[
            "fastcgi_cache_use_stale", "fastcgi_next_upstream", "scgi_cache_use_stale", "scgi_next_upstream",
            "uwsgi_cache_use_stale", "uwsgi_next_upstream",
        ],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::AtLeast(1), body: Body::Line, repeats: Repeats::Many,
        value: Value::Keywords(&["error", "timeout", "invalid_response", "not_found", "off"]),
        names: &["memcached_next_upstream"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::AtLeast(1), body: Body::Line, repeats: Repeats::Many,
        value: Value::Keywords(&["error", "timeout", "off"]),
        names: &["tunnel_next_upstream"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::AtLeast(1), body: Body::Line, repeats: Repeats::Many,
        value: Value::Keywords(&[
            "off", "expired", "no-cache", "no-store", "private", "no_last_modified", "no_etag", "auth", "any",
        ]),
        names: &["gzip_proxied"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::AtLeast(1), body: Body::Line, repeats: Repeats::Many,
        value: Value::Keywords(&["off", "put", "delete", "mkcol", "copy", "move"]),
        names: &["dav_methods"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::AtLeast(1), body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &[
            "addition_types", "ancient_browser", "charset_types", "early_hints", "fastcgi_cache_bypass",
            "fastcgi_no_cache", "gzip_types", "proxy_cache_bypass", "proxy_no_cache", "scgi_cache_bypass",
            "scgi_no_cache", "ssi_types", "sub_filter_types", "uwsgi_cache_bypass", "uwsgi_no_cache",
            "xslt_types",
        ],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Between(0, 255),
        names: &["uwsgi_modifier1", "uwsgi_modifier2"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Between(1, 9),
        names: &["gzip_comp_level"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Between(400, 599),
        names: &["limit_conn_status", "limit_req_status"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Checked(aio),
        names: &["aio"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Checked(cache),
        names: &["fastcgi_cache", "proxy_cache", "scgi_cache", "uwsgi_cache"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Checked(directio),
        names: &["directio"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Many,
        value: Value::Checked(split_path_info),
        names: &["fastcgi_split_path_info"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Checked(userid_expires),
        names: &["userid_expires"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Checked(userid_mark),
        names: &["userid_mark"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Flag,
        names: &[
            "aio_write", "autoindex", "autoindex_exact_size", "autoindex_localtime",
            "chunked_transfer_encoding", "client_body_in_single_buffer", "create_full_put_path",
            "fastcgi_buffering", "fastcgi_cache_background_update", "fastcgi_cache_lock",
            "fastcgi_cache_revalidate", "fastcgi_force_ranges", "fastcgi_ignore_client_abort",
            "fastcgi_intercept_errors", "fastcgi_keep_conn", "fastcgi_pass_request_body",
            "fastcgi_pass_request_headers", "fastcgi_request_buffering", "fastcgi_socket_keepalive",
            "grpc_intercept_errors", "grpc_socket_keepalive", "grpc_ssl_server_name", "grpc_ssl_session_reuse",
            "grpc_ssl_verify", "gunzip", "gzip", "gzip_no_buffer", "gzip_vary", "image_filter_interlace",
            "image_filter_transparency", "limit_conn_dry_run", "limit_req_dry_run",
            "memcached_socket_keepalive", "mp4_start_key_frame", "msie_refresh",
            "open_file_cache_errors", "open_file_cache_events", "override_charset",
            "proxy_cache_background_update", "proxy_cache_convert_head", "proxy_cache_lock",
            "proxy_cache_revalidate", "proxy_ssl_server_name", "proxy_ssl_session_reuse",
            "proxy_ssl_verify", "rewrite_log", "scgi_buffering",
            "scgi_cache_background_update", "scgi_cache_lock", "scgi_cache_revalidate", "scgi_force_ranges",
            "scgi_ignore_client_abort", "scgi_intercept_errors", "scgi_pass_request_body",
            "scgi_pass_request_headers", "scgi_request_buffering", "scgi_socket_keepalive", "ssi",
            "ssi_ignore_recycled_buffers", "ssi_last_modified", "ssi_silent_errors", "sub_filter_last_modified",
            "sub_filter_once", "tunnel_socket_keepalive", "uninitialized_variable_warn", "uwsgi_buffering",
            "uwsgi_cache_background_update", "uwsgi_cache_lock", "uwsgi_cache_revalidate", "uwsgi_force_ranges",
            "uwsgi_ignore_client_abort", "uwsgi_intercept_errors", "uwsgi_pass_request_body",
            "uwsgi_pass_request_headers", "uwsgi_request_buffering", "uwsgi_socket_keepalive",
            "uwsgi_ssl_server_name", "uwsgi_ssl_session_reuse", "uwsgi_ssl_verify", "xml_external_entities",
            "xslt_last_modified",
        ],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Keyword(&["1.0", "1.1"]),
        names: &["gzip_http_version"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Keyword(&["204", "444"]),
        names: &["degrade"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Keyword(&["html", "json", "jsonp", "xml"]),
        names: &["autoindex_format"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Keyword(&["info", "notice", "warn", "error"]),
        names: &["limit_conn_log_level", "limit_req_log_level"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Keyword(&["off", "log", "v1", "on"]),
        names: &["userid"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Keyword(&["off", "on", "always"]),
        names: &["gzip_static"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Keyword(&["off", "on", "clean"]),
        names: &["client_body_in_file_only"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Milliseconds,
        names: &[
            "auth_delay", "fastcgi_cache_lock_age", "fastcgi_cache_lock_timeout", "fastcgi_connect_timeout",
            "fastcgi_next_upstream_timeout", "fastcgi_read_timeout", "fastcgi_send_timeout",
            "grpc_connect_timeout", "grpc_next_upstream_timeout", "grpc_read_timeout", "grpc_send_timeout",
            "memcached_connect_timeout", "memcached_next_upstream_timeout", "memcached_read_timeout",
            "memcached_send_timeout", "proxy_cache_lock_age", "proxy_cache_lock_timeout", "resolver_timeout",
            "scgi_cache_lock_age", "scgi_cache_lock_timeout", "scgi_connect_timeout",
            "scgi_next_upstream_timeout", "scgi_read_timeout", "scgi_send_timeout", "tunnel_connect_timeout",
            "tunnel_next_upstream_timeout", "tunnel_read_timeout", "tunnel_send_timeout",
            "uwsgi_cache_lock_age", "uwsgi_cache_lock_timeout", "uwsgi_connect_timeout",
            "uwsgi_next_upstream_timeout", "uwsgi_read_timeout", "uwsgi_send_timeout",
        ],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Number,
        names: &[
            "fastcgi_cache_min_uses", "fastcgi_next_upstream_tries", "grpc_next_upstream_tries",
            "grpc_ssl_verify_depth", "memcached_gzip_flag", "memcached_next_upstream_tries", "min_delete_depth",
            "open_file_cache_min_uses", "proxy_cache_min_uses", "proxy_headers_hash_bucket_size",
            "proxy_headers_hash_max_size", "proxy_ssl_verify_depth", "scgi_cache_min_uses",
            "scgi_next_upstream_tries", "tunnel_next_upstream_tries", "types_hash_bucket_size",
            "types_hash_max_size", "userid_service", "uwsgi_cache_min_uses", "uwsgi_next_upstream_tries",
            "uwsgi_ssl_verify_depth",
        ],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Offset,
        names: &[
            "directio_alignment", "fastcgi_cache_max_range_offset", "proxy_cache_max_range_offset",
            "scgi_cache_max_range_offset", "uwsgi_cache_max_range_offset",
        ],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Seconds,
        names: &["open_file_cache_valid"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Size,
        names: &[
            "fastcgi_buffer_size", "fastcgi_busy_buffers_size", "fastcgi_max_temp_file_size",
            "fastcgi_send_lowat", "fastcgi_socket_rcvbuf", "fastcgi_socket_sndbuf",
            "fastcgi_temp_file_write_size", "grpc_buffer_size", "grpc_socket_rcvbuf", "grpc_socket_sndbuf",
            "gzip_min_length", "http2_chunk_size", "image_filter_buffer", "memcached_buffer_size",
            "mp4_buffer_size", "mp4_max_buffer_size", "postpone_gzipping", "postpone_output",
            "proxy_send_lowat", "proxy_socket_rcvbuf", "proxy_socket_sndbuf", "read_ahead", "scgi_buffer_size",
            "scgi_busy_buffers_size", "scgi_max_temp_file_size", "scgi_socket_rcvbuf", "scgi_socket_sndbuf",
            "scgi_temp_file_write_size", "send_lowat", "sendfile_max_chunk", "slice", "ssi_min_file_chunk",
            "ssi_value_length", "subrequest_output_buffer_size", "tunnel_buffer_size", "tunnel_send_lowat",
            "tunnel_socket_rcvbuf", "tunnel_socket_sndbuf", "uwsgi_buffer_size", "uwsgi_busy_buffers_size",
            "uwsgi_max_temp_file_size", "uwsgi_socket_rcvbuf", "uwsgi_socket_sndbuf",
            "uwsgi_temp_file_write_size",
        ],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::SizeWithVariables,
        names: &[
            "fastcgi_limit_rate", "limit_rate", "limit_rate_after", "proxy_limit_rate", "scgi_limit_rate",
            "uwsgi_limit_rate",
        ],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Sizes(&[512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072]),
        names: &["gzip_hash"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Sizes(&[512, 1024, 2048, 4096, 8192, 16384, 32768]),
        names: &["gzip_window"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &[
            "ancient_browser_value", "fastcgi_catch_stderr", "fastcgi_hide_header", "fastcgi_pass_header",
            "grpc_hide_header", "grpc_pass_header", "http2_push", "http2_push_preload",
            "image_filter_jpeg_quality", "image_filter_sharpen", "image_filter_webp_quality",
            "modern_browser_value", "scgi_hide_header", "scgi_pass_header",
            "uwsgi_hide_header", "uwsgi_pass_header",
        ],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Text,
        names: &[
            "add_after_body", "add_before_body", "auth_basic", "auth_basic_user_file",
            "charset", "fastcgi_cache_key", "fastcgi_index", "fastcgi_store", "grpc_ssl_certificate",
            "grpc_ssl_certificate_key", "grpc_ssl_ciphers", "grpc_ssl_crl", "grpc_ssl_name",
            "grpc_ssl_password_file", "grpc_ssl_trusted_certificate", "post_action", "proxy_cache_key",
            "proxy_ssl_certificate", "proxy_ssl_certificate_key", "proxy_ssl_ciphers", "proxy_ssl_crl",
            "proxy_ssl_name", "proxy_ssl_password_file", "proxy_ssl_trusted_certificate", "proxy_store",
            "scgi_cache_key", "scgi_store", "secure_link", "secure_link_md5",
            "secure_link_secret", "source_charset", "userid_domain", "userid_name", "userid_p3p", "userid_path",
            "uwsgi_cache_key", "uwsgi_ssl_certificate", "uwsgi_ssl_certificate_key", "uwsgi_ssl_ciphers",
            "uwsgi_ssl_crl", "uwsgi_ssl_name", "uwsgi_ssl_password_file", "uwsgi_ssl_trusted_certificate",
            "uwsgi_store", "uwsgi_string", "xml_entities",
        ],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::TWO, body: Body::Line, repeats: Repeats::Once,
        value: Value::Buffers,
        names: &[
            "fastcgi_buffers", "gunzip_buffers", "gzip_buffers", "output_buffers", "scgi_buffers",
            "uwsgi_buffers",
        ],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::TWO, body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &[
            "grpc_set_header", "grpc_ssl_conf_command", "limit_conn",
            "proxy_ssl_conf_command", "sub_filter", "uwsgi_ssl_conf_command", "xslt_param", "xslt_string_param",
        ],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::Take(1, 2), body: Body::Line, repeats: Repeats::Once,
        value: Value::Checked(bind),
        names: &[
            "fastcgi_bind", "grpc_bind", "memcached_bind", "proxy_bind", "scgi_bind", "tunnel_bind",
            "uwsgi_bind",
        ],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::Take(1, 2), body: Body::Line, repeats: Repeats::Once,
        value: Value::Checked(open_file_cache),
        names: &["open_file_cache"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::Take(1, 2), body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &["modern_browser", "proxy_cookie_domain", "proxy_cookie_path"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::Take(1, 2), body: Body::Line, repeats: Repeats::Once,
        value: Value::Text,
        names: &["disable_symlinks"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::Take(1, 3), body: Body::Line, repeats: Repeats::Once,
        value: Value::Checked(access),
        names: &[
            "dav_access", "fastcgi_store_access", "proxy_store_access", "scgi_store_access",
            "uwsgi_store_access",
        ],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::Take(1, 3), body: Body::Line, repeats: Repeats::Once,
        value: Value::Checked(certificate_cache),
        names: &["grpc_ssl_certificate_cache", "proxy_ssl_certificate_cache", "uwsgi_ssl_certificate_cache"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::Take(1, 3), body: Body::Line, repeats: Repeats::Many,
        value: Value::Keywords(&["off", "secure", "httponly", "samesite=strict", "samesite=lax", "samesite=none"]),
        names: &["userid_flags"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::Take(1, 3), body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &["limit_req"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::Take(1, 4), body: Body::Line, repeats: Repeats::Once,
        value: Value::Checked(open_file_cache),
        names: &["open_log_file_cache"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::Take(1, 4), body: Body::Line, repeats: Repeats::Once,
        value: Value::Checked(temp_path),
        names: &["fastcgi_temp_path", "scgi_temp_path", "uwsgi_temp_path"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::Take(1, 4), body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &["proxy_cookie_flags"],
    },
    Signatures {
        contexts: Contexts::HTTP_ALL, arity: Arity::Take(2, 3), body: Body::Line, repeats: Repeats::Many,
        value: Value::Checked(gateway_param),
        names: &["fastcgi_param", "scgi_param", "uwsgi_param"],
    },
    Signatures {
        contexts: Contexts::LOCATION, arity: Arity::AtLeast(1), body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &["xslt_stylesheet"],
    },
    Signatures {
        contexts: Contexts::LOCATION, arity: Arity::NONE, body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &["empty_gif", "flv", "mp4"],
    },
    Signatures {
        contexts: Contexts::LOCATION, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Flag,
        names: &["random_index"],
    },
    Signatures {
        contexts: Contexts::LOCATION, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &["perl"],
    },
    Signatures {
        contexts: Contexts::LOCATION, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Text,
        names: &["fastcgi_pass", "grpc_pass", "memcached_pass", "scgi_pass", "uwsgi_pass"],
    },
    Signatures {
        contexts: Contexts::LOCATION, arity: Arity::Take(1, 3), body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &["image_filter"],
    },
    Signatures {
        contexts: Contexts::MAIN, arity: Arity::AtLeast(1), body: Body::Line, repeats: Repeats::Once,
        value: Value::Checked(cpu_affinity),
        names: &["worker_cpu_affinity"],
    },
    Signatures {
        contexts: Contexts::MAIN, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Checked(priority),
        names: &["worker_priority"],
    },
    Signatures {
        contexts: Contexts::MAIN, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Flag,
        names: &["pcre_jit", "quic_bpf", "ssl_object_cache_inheritable"],
    },
    Signatures {
        contexts: Contexts::MAIN, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Keyword(&["stop", "abort"]),
        names: &["debug_points"],
    },
    Signatures {
        contexts: Contexts::MAIN, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Milliseconds,
        names: &["timer_resolution"],
    },
    Signatures {
        contexts: Contexts::MAIN, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Offset,
        names: &["worker_rlimit_core"],
    },
    Signatures {
        contexts: Contexts::MAIN, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &["load_module"],
    },
    Signatures {
        contexts: Contexts::MAIN, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Text,
        names: &["google_perftools_profiles", "ssl_engine", "working_directory"],
    },
    Signatures {
        contexts: Contexts::MAIN, arity: Arity::Take(2, 3), body: Body::Line, repeats: Repeats::Many,
        value: Value::Checked(thread_pool),
        names: &["thread_pool"],
    },
    Signatures {
        contexts: Contexts::SERVER_LOCATION, arity: Arity::AtLeast(1), body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &["valid_referers"],
    },
    Signatures {
        contexts: Contexts::SERVER_LOCATION, arity: Arity::NONE, body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &["break"],
    },
    Signatures {
        contexts: Contexts::SERVER_LOCATION, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Number,
        names: &["referer_hash_bucket_size", "referer_hash_max_size"],
    },
    Signatures {
        contexts: Contexts::SERVER_LOCATION, arity: Arity::TWO, body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &["set"],
    },
    Signatures {
        contexts: Contexts::SERVER_LOCATION, arity: Arity::Take(0, 1), body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &["stub_status"],
    },
    Signatures {
        contexts: Contexts::SERVER_LOCATION, arity: Arity::Take(0, 1), body: Body::Line, repeats: Repeats::Once,
        value: Value::Text,
        names: &["tunnel_pass"],
    },
    Signatures {
        contexts: Contexts::SERVER_LOCATION, arity: Arity::Take(2, 3), body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &["rewrite"],
    },
    Signatures {
        contexts: Contexts::UPSTREAM, arity: Arity::AtLeast(1), body: Body::Line, repeats: Repeats::Once,
        value: Value::Checked(resolver),
        names: &["resolver"],
    },
    Signatures {
        contexts: Contexts::UPSTREAM, arity: Arity::AtLeast(2), body: Body::Line, repeats: Repeats::Once,
        value: Value::Text,
        names: &["sticky"],
    },
    Signatures {
        contexts: Contexts::UPSTREAM, arity: Arity::ONE, body: Body::Line, repeats: Repeats::Once,
        value: Value::Milliseconds,
        names: &["resolver_timeout"],
    },
    Signatures {
        contexts: Contexts::UPSTREAM, arity: Arity::Take(1, 2), body: Body::Line, repeats: Repeats::Many,
        value: Value::Text,
        names: &["hash", "least_time"],
    },
    Signatures {
        contexts: Contexts::HTTP, arity: Arity::TWO, body: Body::Block, repeats: Repeats::Many,
        value: Value::Text,
        names: &["charset_map", "split_clients"],
    },
    Signatures {
        contexts: Contexts::HTTP, arity: Arity::Take(1, 2), body: Body::Block, repeats: Repeats::Many,
        value: Value::Text,
        names: &["geo"],
    },
    Signatures {
        contexts: Contexts::LOCATION, arity: Arity::AtLeast(1), body: Body::Block, repeats: Repeats::Once,
        value: Value::Text,
        names: &["limit_except"],
    },
    Signatures {
        contexts: Contexts::SERVER_LOCATION, arity: Arity::AtLeast(1), body: Body::Block, repeats: Repeats::Many,
        value: Value::Text,
        names: &["if"],
    },
];

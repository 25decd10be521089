//! Directives without effect that act only beside others: caches, TLS, access control, limits and filters.

use super::{HTTP, HTTP_ALL, HTTP_SERVER, MAIN, ONE, TLS_PROTOCOLS, TWO, foreign, line};
use crate::{
    known::{
        Effect, Group,
        checks::{access, cache_path, cache_valid, certificate_cache, ssl_session_cache},
        signatures::{
            Repeats::{Many, Once},
            Value::{
                self, Checked, Flag, Keyword, Keywords, Milliseconds, Number, Offset, Seconds, Size, Text,
            },
        },
    },
    registry::Arity::{AtLeast, Take},
};

const PROXY_CACHE_USE_STALE: Value = Value::Keywords(&[
    "error",
    "timeout",
    "invalid_header",
    "non_idempotent",
    "http_500",
    "http_502",
    "http_503",
    "http_504",
    "http_403",
    "http_404",
    "http_429",
    "updating",
    "off",
]);
const SSL_VERIFY_CLIENT: Value = Value::Keyword(&["off", "on", "optional", "optional_no_ca"]);

#[rustfmt::skip]
pub(super) const GROUPS: &[Group] = &[
    Group {
        effect: Effect::Companion("proxy_cache"),
        rows: &[
            line("proxy_cache_background_update", HTTP_ALL, ONE, Once, Flag),
            line("proxy_cache_bypass", HTTP_ALL, AtLeast(1), Many, Text),
            line("proxy_cache_convert_head", HTTP_ALL, ONE, Once, Flag),
            line("proxy_cache_key", HTTP_ALL, ONE, Once, Text),
            line("proxy_cache_lock", HTTP_ALL, ONE, Once, Flag),
            line("proxy_cache_lock_age", HTTP_ALL, ONE, Once, Milliseconds),
            line("proxy_cache_lock_timeout", HTTP_ALL, ONE, Once, Milliseconds),
            line("proxy_cache_max_range_offset", HTTP_ALL, ONE, Once, Offset),
            line("proxy_cache_methods", HTTP_ALL, AtLeast(1), Many, Keywords(&["GET", "HEAD", "POST"])),
            line("proxy_cache_min_uses", HTTP_ALL, ONE, Once, Number),
            line("proxy_cache_path", HTTP, AtLeast(2), Many, Checked(cache_path)),
            foreign("proxy_cache_purge"),
            line("proxy_cache_revalidate", HTTP_ALL, ONE, Once, Flag),
            line("proxy_cache_use_stale", HTTP_ALL, AtLeast(1), Many, PROXY_CACHE_USE_STALE),
            line("proxy_cache_valid", HTTP_ALL, AtLeast(1), Many, Checked(cache_valid)),
            line("proxy_no_cache", HTTP_ALL, AtLeast(1), Many, Text),
        ],
    },
    Group {
        effect: Effect::Companion("a `listen` with `ssl` or `quic`, or a `proxy_pass` to `https://`"),
        rows: &[
            foreign("acme_certificate"),
            foreign("acme_issuer"),
            foreign("acme_shared_zone"),
            line("http3_max_concurrent_streams", HTTP_SERVER, ONE, Once, Number),
            line("http3_stream_buffer_size", HTTP_SERVER, ONE, Once, Size),
            foreign("proxy_ssl"),
            foreign("proxy_ssl_alpn"),
            line("proxy_ssl_certificate", HTTP_ALL, ONE, Once, Text),
            line("proxy_ssl_certificate_cache", HTTP_ALL, Take(1, 3), Once, Checked(certificate_cache)),
            line("proxy_ssl_certificate_key", HTTP_ALL, ONE, Once, Text),
            line("proxy_ssl_ciphers", HTTP_ALL, ONE, Once, Text),
            line("proxy_ssl_conf_command", HTTP_ALL, TWO, Many, Text),
            line("proxy_ssl_crl", HTTP_ALL, ONE, Once, Text),
            line("proxy_ssl_name", HTTP_ALL, ONE, Once, Text),
            line("proxy_ssl_password_file", HTTP_ALL, ONE, Once, Text),
            line("proxy_ssl_protocols", HTTP_ALL, AtLeast(1), Many, TLS_PROTOCOLS),
            line("proxy_ssl_server_name", HTTP_ALL, ONE, Once, Flag),
            line("proxy_ssl_session_reuse", HTTP_ALL, ONE, Once, Flag),
            line("proxy_ssl_trusted_certificate", HTTP_ALL, ONE, Once, Text),
            line("proxy_ssl_verify", HTTP_ALL, ONE, Once, Flag),
            line("proxy_ssl_verify_depth", HTTP_ALL, ONE, Once, Number),
            line("quic_active_connection_id_limit", HTTP_SERVER, ONE, Once, Number),
            line("quic_gso", HTTP_SERVER, ONE, Once, Flag),
            line("quic_host_key", HTTP_SERVER, ONE, Once, Text),
            line("quic_retry", HTTP_SERVER, ONE, Once, Flag),
            foreign("ssl"),
            foreign("ssl_alpn"),
            foreign("ssl_dyn_rec_enable"),
            foreign("ssl_handshake_timeout"),
            foreign("ssl_preread"),
            foreign("starttls"),
        ],
    },
    Group {
        effect: Effect::Differs("clients would be let in without a certificate"),
        rows: &[
            line("ssl_verify_client", HTTP_SERVER, ONE, Once, SSL_VERIFY_CLIENT),
        ],
    },
    Group {
        effect: Effect::Companion("ssl_verify_client"),
        rows: &[
            line("ssl_client_certificate", HTTP_SERVER, ONE, Once, Text),
            line("ssl_crl", HTTP_SERVER, ONE, Once, Text),
            line("ssl_ocsp", HTTP_SERVER, ONE, Once, Keyword(&["off", "on", "leaf"])),
            line("ssl_ocsp_cache", HTTP_SERVER, ONE, Once, Text),
            line("ssl_ocsp_responder", HTTP_SERVER, ONE, Once, Text),
            line("ssl_trusted_certificate", HTTP_SERVER, ONE, Once, Text),
            line("ssl_verify_depth", HTTP_SERVER, ONE, Once, Number),
        ],
    },
    Group {
        effect: Effect::Harmless("clients get no word about revocation with the certificate, and ask for it themselves if they care"),
        rows: &[
            line("ssl_stapling", HTTP_SERVER, ONE, Once, Flag),
            line("ssl_stapling_file", HTTP_SERVER, ONE, Once, Text),
        ],
    },
    Group {
        effect: Effect::Companion("ssl_stapling"),
        rows: &[
            line("ssl_stapling_responder", HTTP_SERVER, ONE, Once, Text),
            line("ssl_stapling_verify", HTTP_SERVER, ONE, Once, Flag),
        ],
    },
    Group {
        effect: Effect::Harmless("there is no OpenSSL here that it could be told to"),
        rows: &[
            line("ssl_conf_command", HTTP_SERVER, TWO, Many, Text),
            line("ssl_ech_file", HTTP_SERVER, ONE, Many, Text),
            line("ssl_engine", MAIN, ONE, Once, Text),
        ],
    },
    Group {
        effect: Effect::Harmless("keys are exchanged by elliptic curves alone"),
        rows: &[
            line("ssl_dhparam", HTTP_SERVER, ONE, Once, Text),
        ],
    },
    Group {
        effect: Effect::Harmless("early data is refused, and clients send it again"),
        rows: &[
            line("ssl_early_data", HTTP_SERVER, ONE, Once, Flag),
        ],
    },
    Group {
        effect: Effect::Tuning,
        rows: &[
            line("ssl_certificate_cache", HTTP_SERVER, Take(1, 3), Once, Checked(certificate_cache)),
            line("ssl_certificate_compression", HTTP_SERVER, ONE, Once, Flag),
            line("ssl_object_cache_inheritable", MAIN, ONE, Once, Flag),
            line("ssl_session_cache", HTTP_SERVER, Take(1, 2), Many, Checked(ssl_session_cache)),
            line("ssl_session_ticket_key", HTTP_SERVER, ONE, Many, Text),
            line("ssl_session_tickets", HTTP_SERVER, ONE, Once, Flag),
            line("ssl_session_timeout", HTTP_SERVER, ONE, Once, Seconds),
        ],
    },
    Group {
        effect: Effect::Companion("auth_jwt"),
        rows: &[
            foreign("auth_jwt_claim_set"),
            foreign("auth_jwt_header_set"),
            foreign("auth_jwt_key_cache"),
            foreign("auth_jwt_key_file"),
            foreign("auth_jwt_key_request"),
            foreign("auth_jwt_leeway"),
            foreign("auth_jwt_require"),
            foreign("auth_jwt_type"),
            foreign("oidc_provider"),
        ],
    },
    Group {
        effect: Effect::Companion("the filter that it belongs to"),
        rows: &[
            foreign("f4f_buffer_size"),
            foreign("hls_buffers"),
            foreign("hls_forward_args"),
            foreign("hls_fragment"),
            foreign("hls_mp4_buffer_size"),
            foreign("hls_mp4_max_buffer_size"),
            line("image_filter_buffer", HTTP_ALL, ONE, Once, Size),
            line("image_filter_interlace", HTTP_ALL, ONE, Once, Flag),
            line("image_filter_jpeg_quality", HTTP_ALL, ONE, Many, Text),
            line("image_filter_sharpen", HTTP_ALL, ONE, Many, Text),
            line("image_filter_transparency", HTTP_ALL, ONE, Once, Flag),
            line("image_filter_webp_quality", HTTP_ALL, ONE, Many, Text),
            line("mp4_buffer_size", HTTP_ALL, ONE, Once, Size),
            line("mp4_max_buffer_size", HTTP_ALL, ONE, Once, Size),
            line("mp4_start_key_frame", HTTP_ALL, ONE, Once, Flag),
            line("ssi_ignore_recycled_buffers", HTTP_ALL, ONE, Once, Flag),
            line("ssi_last_modified", HTTP_ALL, ONE, Once, Flag),
            line("ssi_min_file_chunk", HTTP_ALL, ONE, Once, Size),
            line("ssi_silent_errors", HTTP_ALL, ONE, Once, Flag),
            line("ssi_types", HTTP_ALL, AtLeast(1), Many, Text),
            line("ssi_value_length", HTTP_ALL, ONE, Once, Size),
            line("xml_external_entities", HTTP_ALL, ONE, Once, Flag),
            line("xslt_last_modified", HTTP_ALL, ONE, Once, Flag),
            line("xslt_param", HTTP_ALL, TWO, Many, Text),
            line("xslt_string_param", HTTP_ALL, TWO, Many, Text),
            line("xslt_types", HTTP_ALL, AtLeast(1), Many, Text),
        ],
    },
    Group {
        effect: Effect::Companion("dav_methods"),
        rows: &[
            line("create_full_put_path", HTTP_ALL, ONE, Once, Flag),
            line("dav_access", HTTP_ALL, Take(1, 3), Once, Checked(access)),
            line("min_delete_depth", HTTP_ALL, ONE, Once, Number),
        ],
    },
];

//! Directives without effect that act on their own, those that tune, and what belongs to compression.

use super::{
    EVENTS, HTTP, HTTP_ALL, HTTP_SERVER, LIMIT_EXCEPT, LOCATION, LOCATION_IF, MAIN, NONE, ONE,
    SERVER_LOCATION, TWO, UP_TO_ONE, UPSTREAM, foreign, line,
};
use crate::{
    known::{
        Effect, Group,
        checks::{
            aio, cache, cpu_affinity, directio, event_method, open_file_cache, pool_size, priority,
            thread_pool,
        },
        signatures::{
            Repeats::{Many, Once},
            Value::{
                self, Buffers, Checked, Flag, Keyword, Milliseconds, Number, Offset, Seconds, Size, Text,
            },
        },
    },
    registry::Arity::{AtLeast, Take},
};

const DAV_METHODS: Value = Value::Keywords(&["off", "put", "delete", "mkcol", "copy", "move"]);
#[rustfmt::skip]
pub(super) const GROUPS: &[Group] = &[
    Group {
        effect: Effect::Differs("requests would be answered by the wrong place or not rewritten"),
        rows: &[
            foreign("internal_redirect"),
        ],
    },
    Group {
        effect: Effect::Differs("clients without credentials would get in"),
        rows: &[
            foreign("access_by_lua_block"),
            foreign("access_by_lua_file"),
            foreign("auth_jwt"),
            foreign("auth_oidc"),
            foreign("js_access"),
            foreign("secure_link_hash"),
        ],
    },
    Group {
        effect: Effect::Differs("requests beyond the limit would get through"),
        rows: &[
            foreign("limit_zone"),
        ],
    },
    Group {
        effect: Effect::Differs("responses would have another body"),
        rows: &[
            foreign("body_filter_by_lua_block"),
            foreign("f4f"),
            line("flv", LOCATION, NONE, Many, Text),
            foreign("hls"),
            line("image_filter", LOCATION, Take(1, 3), Many, Text),
            foreign("js_body_filter"),
            line("mp4", LOCATION, NONE, Many, Text),
            line("slice", HTTP_ALL, ONE, Once, Size),
            line("ssi", HTTP_ALL.or(LOCATION_IF), ONE, Once, Flag),
            line("xml_entities", HTTP_ALL, ONE, Once, Text),
            line("xslt_stylesheet", LOCATION, AtLeast(1), Many, Text),
        ],
    },
    Group {
        effect: Effect::Differs("responses would have other fields"),
        rows: &[
            line("early_hints", HTTP_ALL, AtLeast(1), Many, Text),
            foreign("header_filter_by_lua_block"),
            foreign("js_header_filter"),
            foreign("more_clear_headers"),
            foreign("more_set_headers"),
            foreign("more_set_input_headers"),
        ],
    },
    Group {
        effect: Effect::Differs("requests here would be answered with files instead"),
        rows: &[
            foreign("api"),
            foreign("content_by_lua_block"),
            foreign("content_by_lua_file"),
            line("dav_methods", HTTP_ALL, AtLeast(1), Many, DAV_METHODS),
            foreign("echo"),
            line("fastcgi_store", HTTP_ALL, ONE, Once, Text),
            foreign("js_content"),
            line("memcached_pass", LOCATION.or(LOCATION_IF), ONE, Once, Text),
            line("perl", LOCATION.or(LIMIT_EXCEPT), ONE, Many, Text),
            line("proxy_store", HTTP_ALL, ONE, Once, Text),
            foreign("rewrite_by_lua_block"),
            foreign("rewrite_by_lua_file"),
            line("scgi_store", HTTP_ALL, ONE, Once, Text),
            foreign("status"),
            line("tunnel_pass", SERVER_LOCATION.or(LOCATION_IF), UP_TO_ONE, Once, Text),
            line("uwsgi_store", HTTP_ALL, ONE, Once, Text),
        ],
    },
    Group {
        effect: Effect::Differs("the variables it defines would have no value"),
        rows: &[
            foreign("geoip2"),
            line("geoip_city", HTTP, Take(1, 2), Once, Text),
            line("geoip_country", HTTP, Take(1, 2), Once, Text),
            line("geoip_org", HTTP, Take(1, 2), Once, Text),
            foreign("js_set"),
            foreign("js_var"),
            foreign("keyval"),
            foreign("num_map"),
            line("perl_set", HTTP, TWO, Many, Text),
            foreign("set_by_lua_block"),
        ],
    },
    Group {
        effect: Effect::Differs("requests would go to other peers"),
        rows: &[
            foreign("balancer_by_lua_block"),
            foreign("health_check"),
            foreign("js_filter"),
            foreign("js_preread"),
            line("least_time", UPSTREAM, Take(1, 2), Many, Text),
            foreign("match"),
            foreign("ntlm"),
            foreign("queue"),
            foreign("state"),
            line("sticky", UPSTREAM, AtLeast(2), Once, Text),
            foreign("sticky_cookie_insert"),
        ],
    },
    Group {
        effect: Effect::Differs("nothing in it would be served"),
        rows: &[
            foreign("mail"),
            foreign("stream"),
        ],
    },
    Group {
        effect: Effect::Differs("files behind symbolic links would be sent"),
        rows: &[
            line("disable_symlinks", HTTP_ALL, Take(1, 2), Once, Text),
        ],
    },
    Group {
        effect: Effect::Differs("request bodies would not be kept"),
        rows: &[
            line("client_body_in_file_only", HTTP_ALL, ONE, Once, Keyword(&["off", "on", "clean"])),
        ],
    },
    Group {
        effect: Effect::Harmless("responses are sent uncompressed"),
        rows: &[
            foreign("brotli"),
            foreign("brotli_static"),
            foreign("zstd"),
        ],
    },
    Group {
        effect: Effect::Harmless("every response comes from a peer"),
        rows: &[
            line("fastcgi_cache", HTTP_ALL, ONE, Once, Checked(cache)),
            line("proxy_cache", HTTP_ALL, ONE, Once, Checked(cache)),
            line("scgi_cache", HTTP_ALL, ONE, Once, Checked(cache)),
            line("uwsgi_cache", HTTP_ALL, ONE, Once, Checked(cache)),
        ],
    },
    Group {
        effect: Effect::Harmless("nginx ignores it, too: it is obsolete"),
        rows: &[
            line("http2_idle_timeout", HTTP_SERVER, ONE, Many, Text),
            line("http2_max_concurrent_pushes", HTTP_SERVER, ONE, Many, Text),
            line("http2_max_field_size", HTTP_SERVER, ONE, Many, Text),
            line("http2_max_header_size", HTTP_SERVER, ONE, Many, Text),
            line("http2_max_requests", HTTP_SERVER, ONE, Many, Text),
            line("http2_push", HTTP_ALL, ONE, Many, Text),
            line("http2_push_preload", HTTP_ALL, ONE, Many, Text),
            line("http2_recv_timeout", HTTP_SERVER, ONE, Many, Text),
        ],
    },
    Group {
        effect: Effect::Harmless("clients are answered without it"),
        rows: &[
            line("http3", HTTP_SERVER, ONE, Once, Flag),
            line("http3_hq", HTTP_SERVER, ONE, Once, Flag),
        ],
    },
    Group {
        effect: Effect::Harmless("the module is not loaded; its directives are named one by one"),
        rows: &[
            line("google_perftools_profiles", MAIN, ONE, Once, Text),
            foreign("init_by_lua_block"),
            foreign("init_worker_by_lua_block"),
            foreign("js_engine"),
            foreign("js_import"),
            line("load_module", MAIN, ONE, Many, Text),
            line("perl_modules", HTTP, ONE, Many, Text),
            line("perl_require", HTTP, ONE, Many, Text),
        ],
    },
    Group {
        effect: Effect::Harmless("nothing is recorded"),
        rows: &[
            foreign("log_by_lua_block"),
            foreign("otel_exporter"),
            foreign("otel_service_name"),
            foreign("otel_span_attr"),
            foreign("otel_span_name"),
            foreign("otel_trace"),
            foreign("otel_trace_context"),
            foreign("session_log"),
            foreign("session_log_format"),
            foreign("session_log_zone"),
            foreign("status_format"),
        ],
    },
    Group {
        effect: Effect::Harmless("the server's identity is its own"),
        rows: &[
            foreign("license_token"),
            foreign("mgmt"),
            foreign("zone_sync"),
            foreign("zone_sync_buffers"),
            foreign("zone_sync_server"),
        ],
    },
    Group {
        effect: Effect::Tuning,
        rows: &[
            line("accept_mutex", EVENTS, ONE, Once, Flag),
            line("accept_mutex_delay", EVENTS, ONE, Once, Milliseconds),
            line("acceptex_read", EVENTS, ONE, Once, Flag),
            line("aio", HTTP_ALL, ONE, Once, Checked(aio)),
            line("aio_write", HTTP_ALL, ONE, Once, Flag),
            line("client_body_early_read", HTTP_SERVER, AtLeast(1), Many, Text),
            line("client_body_in_single_buffer", HTTP_ALL, ONE, Once, Flag),
            line("connection_pool_size", HTTP_SERVER, ONE, Once, Checked(pool_size)),
            line("devpoll_changes", EVENTS, ONE, Once, Number),
            line("devpoll_events", EVENTS, ONE, Once, Number),
            line("directio", HTTP_ALL, ONE, Once, Checked(directio)),
            line("directio_alignment", HTTP_ALL, ONE, Once, Offset),
            line("epoll_events", EVENTS, ONE, Once, Number),
            line("http2_chunk_size", HTTP_ALL, ONE, Once, Size),
            line("http2_pool_size", HTTP_SERVER, ONE, Once, Size),
            line("http2_recv_buffer_size", HTTP, ONE, Once, Size),
            line("http2_streams_index_size", HTTP_SERVER, ONE, Once, Number),
            line("iocp_threads", EVENTS, ONE, Once, Number),
            line("kqueue_changes", EVENTS, ONE, Once, Number),
            line("kqueue_events", EVENTS, ONE, Once, Number),
            line("map_hash_bucket_size", HTTP, ONE, Once, Number),
            line("map_hash_max_size", HTTP, ONE, Once, Number),
            line("multi_accept", EVENTS, ONE, Once, Flag),
            line("open_file_cache", HTTP_ALL, Take(1, 2), Once, Checked(open_file_cache)),
            line("open_file_cache_errors", HTTP_ALL, ONE, Once, Flag),
            line("open_file_cache_events", HTTP_ALL, ONE, Once, Flag),
            line("open_file_cache_min_uses", HTTP_ALL, ONE, Once, Number),
            line("open_file_cache_valid", HTTP_ALL, ONE, Once, Seconds),
            line("open_log_file_cache", HTTP_ALL, Take(1, 4), Once, Checked(open_file_cache)),
            line("output_buffers", HTTP_ALL, TWO, Once, Buffers),
            line("pcre_jit", MAIN, ONE, Once, Flag),
            line("post_acceptex", EVENTS, ONE, Once, Number),
            line("postpone_output", HTTP_ALL, ONE, Once, Size),
            line("proxy_headers_hash_bucket_size", HTTP_ALL, ONE, Once, Number),
            line("proxy_headers_hash_max_size", HTTP_ALL, ONE, Once, Number),
            line("fastcgi_send_lowat", HTTP_ALL, ONE, Once, Size),
            line("proxy_send_lowat", HTTP_ALL, ONE, Once, Size),
            line("quic_bpf", MAIN, ONE, Once, Flag),
            line("read_ahead", HTTP_ALL, ONE, Once, Size),
            line("referer_hash_bucket_size", SERVER_LOCATION, ONE, Once, Number),
            line("referer_hash_max_size", SERVER_LOCATION, ONE, Once, Number),
            line("request_pool_size", HTTP_SERVER, ONE, Once, Checked(pool_size)),
            line("send_lowat", HTTP_ALL, ONE, Once, Size),
            line("sendfile_max_chunk", HTTP_ALL, ONE, Once, Size),
            line("server_names_hash_bucket_size", HTTP, ONE, Once, Number),
            line("server_names_hash_max_size", HTTP, ONE, Once, Number),
            line("subrequest_output_buffer_size", HTTP_ALL, ONE, Once, Size),
            line("thread_pool", MAIN, Take(2, 3), Many, Checked(thread_pool)),
            line("timer_resolution", MAIN, ONE, Once, Milliseconds),
            line("types_hash_bucket_size", HTTP_ALL, ONE, Once, Number),
            line("types_hash_max_size", HTTP_ALL, ONE, Once, Number),
            line("use", EVENTS, ONE, Once, Checked(event_method)),
            line("variables_hash_bucket_size", HTTP, ONE, Once, Number),
            line("variables_hash_max_size", HTTP, ONE, Once, Number),
            line("worker_aio_requests", EVENTS, ONE, Once, Number),
            line("worker_cpu_affinity", MAIN, AtLeast(1), Once, Checked(cpu_affinity)),
        ],
    },
    Group {
        effect: Effect::Harmless("no debug log is written"),
        rows: &[
            line("debug_connection", EVENTS, ONE, Many, Text),
        ],
    },
    Group {
        effect: Effect::Harmless("old browsers get what everybody gets"),
        rows: &[
        ],
    },
    Group {
        effect: Effect::Harmless("the data plane keeps the priority that it is started with"),
        rows: &[
            line("worker_priority", MAIN, ONE, Once, Checked(priority)),
        ],
    },
    Group {
        effect: Effect::Harmless("the data plane leaves no core file"),
        rows: &[
            line("debug_points", MAIN, ONE, Once, Keyword(&["stop", "abort"])),
            line("worker_rlimit_core", MAIN, ONE, Once, Offset),
        ],
    },
    Group {
        effect: Effect::Harmless("requests are served as long as there is memory"),
        rows: &[
            line("degradation", HTTP, ONE, Many, Text),
        ],
    },
    Group {
        effect: Effect::Companion("worker_rlimit_core, degradation, rewrite or keyval"),
        rows: &[
            line("degrade", HTTP_ALL, ONE, Once, Keyword(&["204", "444"])),
            foreign("keyval_zone"),
            line("working_directory", MAIN, ONE, Once, Text),
        ],
    },
    Group {
        effect: Effect::Companion("brotli"),
        rows: &[
            foreign("brotli_buffers"),
            foreign("brotli_comp_level"),
            foreign("brotli_min_length"),
            foreign("brotli_types"),
            foreign("brotli_window"),
        ],
    },
];

//! All directives, a file for each nginx module.

pub(crate) mod core;
pub(crate) mod events;
pub(crate) mod http_access;
pub(crate) mod http_addition;
pub(crate) mod http_auth_basic;
pub(crate) mod http_auth_request;
pub(crate) mod http_autoindex;
pub(crate) mod http_charset;
pub(crate) mod http_core;
pub(crate) mod http_core_scope;
pub(crate) mod http_empty_gif;
pub(crate) mod http_fastcgi;
pub(crate) mod http_gateway;
pub(crate) mod http_geo;
pub(crate) mod http_grpc;
pub(crate) mod http_gunzip;
pub(crate) mod http_gzip;
pub(crate) mod http_gzip_static;
pub(crate) mod http_headers;
pub(crate) mod http_if;
pub(crate) mod http_index;
pub(crate) mod http_limit_conn;
pub(crate) mod http_limit_except;
pub(crate) mod http_limit_req;
pub(crate) mod http_listen;
pub(crate) mod http_log;
pub(crate) mod http_map;
pub(crate) mod http_mirror;
pub(crate) mod http_prometheus;
pub(crate) mod http_proxy;
pub(crate) mod http_proxy_cookie;
pub(crate) mod http_proxy_pass;
pub(crate) mod http_proxy_upstreams;
pub(crate) mod http_random_index;
pub(crate) mod http_realip;
pub(crate) mod http_referer;
pub(crate) mod http_rewrite;
pub(crate) mod http_scgi;
pub(crate) mod http_secure_link;
pub(crate) mod http_split_clients;
pub(crate) mod http_ssl;
pub(crate) mod http_stub_status;
pub(crate) mod http_sub;
pub(crate) mod http_try_files;
pub(crate) mod http_upstream;
pub(crate) mod http_upstream_scope;
pub(crate) mod http_userid;
pub(crate) mod http_uwsgi;
pub(crate) mod http_v2;
pub(crate) mod limit_zones;
pub(crate) mod resolver;
pub(crate) mod syslog;

use crate::registry::Module;

/// Every module, in the order of the reference.
pub(crate) const MODULES: &[Module] = &[
    Module { name: "ngx_core_module", rows: core::ROWS },
    Module { name: "ngx_event_core_module", rows: events::ROWS },
    Module { name: "ngx_http_core_module", rows: http_core::ROWS },
    Module { name: "ngx_http_core_module", rows: http_core_scope::ROWS },
    Module { name: "ngx_http_core_module", rows: http_limit_except::ROWS },
    Module { name: "ngx_http_core_module", rows: http_try_files::ROWS },
    Module { name: "ngx_http_core_module", rows: resolver::ROWS },
    Module { name: "ngx_http_access_module", rows: http_access::ROWS },
    Module { name: "ngx_http_addition_module", rows: http_addition::ROWS },
    Module { name: "ngx_http_auth_basic_module", rows: http_auth_basic::ROWS },
    Module { name: "ngx_http_auth_request_module", rows: http_auth_request::ROWS },
    Module { name: "ngx_http_autoindex_module", rows: http_autoindex::ROWS },
    Module { name: "ngx_http_charset_module", rows: http_charset::ROWS },
    Module { name: "ngx_http_empty_gif_module", rows: http_empty_gif::ROWS },
    Module { name: "ngx_http_fastcgi_module", rows: http_fastcgi::ROWS },
    Module { name: "ngx_http_fastcgi_module", rows: http_fastcgi::PEER_ROWS },
    Module { name: "ngx_http_fastcgi_module", rows: http_fastcgi::BUFFERING_ROWS },
    Module { name: "ngx_http_geo_module", rows: http_geo::ROWS },
    Module { name: "ngx_http_grpc_module", rows: http_grpc::ROWS },
    Module { name: "ngx_http_grpc_module", rows: http_grpc::PEER_ROWS },
    Module { name: "ngx_http_gunzip_module", rows: http_gunzip::ROWS },
    Module { name: "ngx_http_gzip_module", rows: http_gzip::ROWS },
    Module { name: "ngx_http_gzip_static_module", rows: http_gzip_static::ROWS },
    Module { name: "ngx_http_headers_module", rows: http_headers::ROWS },
    Module { name: "ngx_http_index_module", rows: http_index::ROWS },
    Module { name: "ngx_http_limit_conn_module", rows: http_limit_conn::ROWS },
    Module { name: "ngx_http_limit_req_module", rows: http_limit_req::ROWS },
    Module { name: "ngx_http_log_module", rows: http_log::ROWS },
    Module { name: "ngx_http_map_module", rows: http_map::ROWS },
    Module { name: "ngx_http_mirror_module", rows: http_mirror::ROWS },
    Module { name: "ngx_http_prometheus_module", rows: http_prometheus::ROWS },
    Module { name: "ngx_http_proxy_module", rows: http_proxy_pass::ROWS },
    Module { name: "ngx_http_proxy_module", rows: http_proxy::ROWS },
    Module { name: "ngx_http_proxy_module", rows: http_proxy_cookie::ROWS },
    Module { name: "ngx_http_proxy_module", rows: http_proxy::PEER_ROWS },
    Module { name: "ngx_http_proxy_module", rows: http_proxy::BUFFERING_ROWS },
    Module { name: "ngx_http_random_index_module", rows: http_random_index::ROWS },
    Module { name: "ngx_http_realip_module", rows: http_realip::ROWS },
    Module { name: "ngx_http_referer_module", rows: http_referer::ROWS },
    Module { name: "ngx_http_rewrite_module", rows: http_rewrite::ROWS },
    Module { name: "ngx_http_rewrite_module", rows: http_if::ROWS },
    Module { name: "ngx_http_scgi_module", rows: http_scgi::ROWS },
    Module { name: "ngx_http_scgi_module", rows: http_scgi::PEER_ROWS },
    Module { name: "ngx_http_scgi_module", rows: http_scgi::BUFFERING_ROWS },
    Module { name: "ngx_http_secure_link_module", rows: http_secure_link::ROWS },
    Module { name: "ngx_http_split_clients_module", rows: http_split_clients::ROWS },
    Module { name: "ngx_http_ssl_module", rows: http_ssl::ROWS },
    Module { name: "ngx_http_stub_status_module", rows: http_stub_status::ROWS },
    Module { name: "ngx_http_sub_module", rows: http_sub::ROWS },
    Module { name: "ngx_http_upstream_module", rows: http_upstream::ROWS },
    Module { name: "ngx_http_userid_module", rows: http_userid::ROWS },
    Module { name: "ngx_http_uwsgi_module", rows: http_uwsgi::ROWS },
    Module { name: "ngx_http_uwsgi_module", rows: http_uwsgi::PEER_ROWS },
    Module { name: "ngx_http_uwsgi_module", rows: http_uwsgi::BUFFERING_ROWS },
    Module { name: "ngx_http_v2_module", rows: http_v2::ROWS },
];

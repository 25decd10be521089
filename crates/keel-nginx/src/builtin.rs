//! Files that every nginx installation has, for configurations that include them where nginx is not installed.

/// The nginx.conf of the image `nginx`, for projects that only put files into `/etc/nginx/conf.d`.
pub const IMAGE_NGINX_CONF: &str = include_str!("image.conf");

/// The site that the image serves where the project brings none.
pub const IMAGE_DEFAULT_CONF: &str = include_str!("image-default.conf");

/// The page of that site.
pub const IMAGE_PAGE: &str = include_str!("image-index.html");

/// Its page for errors of instances.
pub const IMAGE_ERROR_PAGE: &str = include_str!("image-50x.html");

/// Debian's.
const PROXY_PARAMS: &str = "\
proxy_set_header Host $http_host;
proxy_set_header X-Real-IP $remote_addr;
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
proxy_set_header X-Forwarded-Proto $scheme;
";

/// What an application that speaks FastCGI is told of a request.
const FASTCGI_PARAMS: &str = "\
fastcgi_param QUERY_STRING $query_string;
fastcgi_param REQUEST_METHOD $request_method;
fastcgi_param CONTENT_TYPE $content_type;
fastcgi_param CONTENT_LENGTH $content_length;
fastcgi_param SCRIPT_NAME $fastcgi_script_name;
fastcgi_param REQUEST_URI $request_uri;
fastcgi_param DOCUMENT_URI $document_uri;
fastcgi_param DOCUMENT_ROOT $document_root;
fastcgi_param SERVER_PROTOCOL $server_protocol;
fastcgi_param REQUEST_SCHEME $scheme;
fastcgi_param HTTPS $https if_not_empty;
fastcgi_param GATEWAY_INTERFACE CGI/1.1;
fastcgi_param SERVER_SOFTWARE nginx/$nginx_version;
fastcgi_param REMOTE_ADDR $remote_addr;
fastcgi_param REMOTE_PORT $remote_port;
fastcgi_param SERVER_ADDR $server_addr;
fastcgi_param SERVER_PORT $server_port;
fastcgi_param SERVER_NAME $server_name;
fastcgi_param REDIRECT_STATUS 200;
";

/// The same, and which file the script is.
const FASTCGI_CONF: &str = "\
fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
include fastcgi_params;
";

/// Debian's, for scripts in PHP.
const FASTCGI_PHP: &str = "\
fastcgi_split_path_info ^(.+?\\.php)(/.*)$;
try_files $fastcgi_script_name =404;
set $path_info $fastcgi_path_info;
fastcgi_param PATH_INFO $path_info;
fastcgi_index index.php;
include fastcgi.conf;
";

/// What an application that speaks uwsgi is told of a request.
const UWSGI_PARAMS: &str = "\
uwsgi_param QUERY_STRING $query_string;
uwsgi_param REQUEST_METHOD $request_method;
uwsgi_param CONTENT_TYPE $content_type;
uwsgi_param CONTENT_LENGTH $content_length;
uwsgi_param REQUEST_URI $request_uri;
uwsgi_param PATH_INFO $document_uri;
uwsgi_param DOCUMENT_ROOT $document_root;
uwsgi_param SERVER_PROTOCOL $server_protocol;
uwsgi_param REQUEST_SCHEME $scheme;
uwsgi_param HTTPS $https if_not_empty;
uwsgi_param REMOTE_ADDR $remote_addr;
uwsgi_param REMOTE_PORT $remote_port;
uwsgi_param SERVER_PORT $server_port;
uwsgi_param SERVER_NAME $server_name;
";

/// What an application that speaks SCGI is told of a request.
const SCGI_PARAMS: &str = "\
scgi_param REQUEST_METHOD $request_method;
scgi_param REQUEST_URI $request_uri;
scgi_param QUERY_STRING $query_string;
scgi_param CONTENT_TYPE $content_type;
scgi_param DOCUMENT_URI $document_uri;
scgi_param DOCUMENT_ROOT $document_root;
scgi_param SCGI 1;
scgi_param SERVER_PROTOCOL $server_protocol;
scgi_param REQUEST_SCHEME $scheme;
scgi_param HTTPS $https if_not_empty;
scgi_param REMOTE_ADDR $remote_addr;
scgi_param REMOTE_PORT $remote_port;
scgi_param SERVER_PORT $server_port;
scgi_param SERVER_NAME $server_name;
";

/// Tables of charsets that are not honoured yet; what would use them is reported.
const NO_TABLE: &str = "";

/// Gives the text of a file by its name.
pub(crate) fn file(name: &str) -> Option<&'static str> {
    match name {
        "mime.types" => Some(include_str!("mime.types")),
        "proxy_params" => Some(PROXY_PARAMS),
        "fastcgi_params" => Some(FASTCGI_PARAMS),
        "fastcgi.conf" => Some(FASTCGI_CONF),
        "fastcgi-php.conf" => Some(FASTCGI_PHP),
        "uwsgi_params" => Some(UWSGI_PARAMS),
        "scgi_params" => Some(SCGI_PARAMS),
        "koi-utf" | "koi-win" | "win-utf" => Some(NO_TABLE),
        _ => None,
    }
}

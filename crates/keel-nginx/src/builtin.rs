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

/// Parameters of protocols and tables of charsets that are not honoured yet; what would use them is reported.
const NO_PARAMS: &str = "";

/// Gives the text of a file by its name.
pub(crate) fn file(name: &str) -> Option<&'static str> {
    match name {
        "mime.types" => Some(include_str!("mime.types")),
        "proxy_params" => Some(PROXY_PARAMS),
        "fastcgi_params" | "fastcgi.conf" | "uwsgi_params" | "scgi_params" | "koi-utf" | "koi-win"
        | "win-utf" => Some(NO_PARAMS),
        _ => None,
    }
}

//! A proxy that speaks TLS to browsers and plain HTTP to what is behind it, as on the internet; a cache too, if asked.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{PATIENCE, Process};

/// The name that the browsers of the tests find it under, unless the story says another.
pub const NAME: &str = "app.test";

/// nginx on a port of its own.
pub struct Proxy {
    nginx: PathBuf,
    directory: PathBuf,
    name: String,
    port: u16,
    cache: Option<&'static str>,
    process: Option<Process>,
}

impl Proxy {
    pub(crate) fn prepare(nginx: PathBuf, openssl: &Path, directory: PathBuf, name: &str) -> Self {
        fs::create_dir(&directory).expect("a directory can be made");
        let mut command = Command::new(openssl);
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]);
        command.args(["-days", "2", "-subj", &format!("/CN={name}"), "-addext", &format!("subjectAltName=DNS:{name}")]);
        command.args(["-keyout", "key.pem", "-out", "certificate.pem"]).current_dir(&directory);
        let made = command.stderr(Stdio::null()).status().expect("openssl can be started");
        assert!(made.success(), "openssl makes a certificate");
        // nginx cannot say which port it got, so one is found for it; the demo has to know it before nginx starts.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.expect("there is a free port").port();
        Self { nginx, directory, name: name.to_owned(), port, cache: None, process: None }
    }

    /// Makes it a cache for everybody, with these lines of configuration besides: they say what it keeps. The header
    /// `X-Cache` of its answers says where each came from.
    #[must_use]
    pub fn caching(mut self, settings: &'static str) -> Self {
        self.cache = Some(settings);
        self
    }

    /// The name and port that it is reached under, which the demo has to allow.
    #[must_use]
    pub fn host(&self) -> String {
        format!("{}:{}", self.name, self.port)
    }

    /// The same port under another name.
    pub(crate) fn origin_as(&self, name: &str) -> String {
        format!("https://{name}:{}", self.port)
    }

    /// The address of a page behind it.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.host())
    }

    /// Starts to pass requests on.
    pub fn start(&mut self, behind: SocketAddr) {
        let cache = self.cache.map(|settings| format!("{CACHE}{settings}"));
        let configuration = CONFIGURATION
            .replace("CACHE_ZONE", if cache.is_some() { "proxy_cache_path cache keys_zone=everybody:1m;" } else { "" })
            .replace("CACHE", &cache.unwrap_or_default())
            .replace("PORT", &self.port.to_string())
            .replace("DIRECTORY", &self.directory.display().to_string())
            .replace("BEHIND", &behind.to_string());
        let file = self.directory.join("nginx.conf");
        fs::write(&file, configuration).expect("the configuration can be written");
        let errors = self.directory.join("errors");
        let mut command = Command::new(&self.nginx);
        command.arg("-p").arg(&self.directory).arg("-c").arg(&file).arg("-e").arg(&errors);
        let process = Process::start(&mut command);
        // It listens before it is a daemon, and has no other way to say so.
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let deadline = std::time::Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            let said = || fs::read_to_string(&errors).unwrap_or_default();
            assert!(std::time::Instant::now() < deadline, "nginx does not listen: {}", said());
            assert!(!process.falls_silent(std::time::Duration::from_millis(40)), "nginx ended: {}", said());
        }
        self.process = Some(process);
    }
}

/// One process, which is the one that is killed. Nothing outside of its directory is written.
const CONFIGURATION: &str = "
daemon off; master_process off; pid nginx.pid; error_log errors;
events {}
http {
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  CACHE_ZONE
  server {
    listen 127.0.0.1:PORT ssl;
    ssl_certificate DIRECTORY/certificate.pem;
    ssl_certificate_key DIRECTORY/key.pem;
    location / {
      proxy_pass http://BEHIND;
      proxy_http_version 1.1;
      proxy_set_header Connection '';
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      CACHE
    }
  }
}
";

/// One entry for each address, whoever asks for it.
const CACHE: &str = "
      proxy_cache everybody;
      proxy_cache_key $scheme$http_host$request_uri;
      proxy_cache_lock on;
      add_header X-Cache $upstream_cache_status always;
";

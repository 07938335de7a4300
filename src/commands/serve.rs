//! `music-streams serve`: the page and the API of a pipeline's figures. Covered by tests/pipeline/reading.rs and
//! tests/lambda.rs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;

use crate::aws::Clients;
use crate::aws::sqs::Queue;
use crate::commands::format::print;
use crate::commands::resources::Tables;
use crate::reading::reader::Reader;
use crate::reports::store::ReadCost;
use crate::web::app::{App, Asked, Options};
use crate::web::guard::{Auth, Guard, LOOPBACK_HOSTS};
use crate::web::server::Server;

/// The variable by which Lambda tells its functions where their events are.
const LAMBDA: &str = "AWS_LAMBDA_RUNTIME_API";
/// The variable that has the token, if no file has it.
const TOKEN: &str = "MUSIC_STREAMS_SERVE_TOKEN";

/// The arguments of `music-streams serve`.
#[derive(Debug, Args)]
pub struct ServeQuery {
    /// Address to serve at
    ///
    /// At an address that others can reach, say by --auth who may ask. In Lambda there is no address.
    #[arg(long, env = "MUSIC_STREAMS_SERVE_ADDRESS", default_value = "127.0.0.1:8088", value_name = "ADDRESS")]
    address: SocketAddr,

    #[command(flatten)]
    tables: Tables,

    /// URL of the pipeline's queue, to tell what waits and whether it works [default: not told]
    #[arg(long, env = "MUSIC_STREAMS_QUEUE_URL", value_name = "URL")]
    queue_url: Option<String>,

    /// Who may ask: whoever can connect; whoever has the token; or whoever somebody in front has let through, as IAM
    /// or a load balancer with a login [default: none at a loopback address, else it has to be said]
    #[arg(long, env = "MUSIC_STREAMS_SERVE_AUTH", value_enum, value_name = "AUTH")]
    auth: Option<AuthKind>,

    /// File with the token, 32 bytes at least [default: the variable MUSIC_STREAMS_SERVE_TOKEN has it]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Name under which the server is known; may be given several times [default: those of a loopback address]
    ///
    /// A request for another host is refused, so that no page of elsewhere can read what is answered here.
    #[arg(long = "allowed-host", env = "MUSIC_STREAMS_SERVE_HOSTS", value_delimiter = ',', value_name = "NAME")]
    allowed_hosts: Vec<String>,

    /// Show the reports whose keys are persons, too
    ///
    /// The role needs the policy for them. Answers are then kept by nobody between.
    #[arg(long, env = "MUSIC_STREAMS_SERVE_PERSONAL")]
    personal: bool,

    /// Interval at which a page that is seen asks for new figures
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    refresh: Duration,

    /// Memory for figures and answers that still hold
    #[arg(long, default_value = "64MiB", value_name = "SIZE")]
    cache_size: ByteSize,

    /// Longest time for which a figure is kept, in case somebody changes a table by hand
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    max_age: Duration,

    /// Requests that are answered at the same time; further ones get 503
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000), value_name = "COUNT")]
    max_requests: u16,

    /// Write the answer to one path and end: a page that stands alone, or an answer of the API
    ///
    /// Such as '/?days=28' or '/api/v1/top/REPORT?days=7&format=csv'. The exit status is 1 if it is a problem.
    #[arg(long, value_name = "PATH")]
    once: Option<String>,

    /// File to write it to [default: standard output]
    #[arg(long, requires = "once", value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The way in which a request shows that it may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AuthKind {
    /// Whoever can connect may ask.
    None,
    /// Whoever sends the token.
    Token,
    /// Somebody in front has judged.
    Upstream,
}

impl ServeQuery {
    /// True if it ends with one answer.
    pub fn is_once(&self) -> bool {
        self.once.is_some()
    }

    /// Serves until the stop is requested, or answers once.
    pub async fn run(self, clients: Clients, stop: CancellationToken) -> Result<(), String> {
        // No message is received, so no visibility timeout is needed.
        let queue = self.queue_url.clone().map(|url| Queue::new(clients.sqs.clone(), url, Duration::ZERO));
        let reader = Reader::new(clients, self.tables.prefix().to_owned(), self.cache_size.as_u64(), self.max_age);
        let options = Options {
            personal: self.personal,
            refresh: self.refresh,
            cache_bytes: self.cache_size.as_u64(),
            max_age: self.max_age,
        };
        let app = App::new(reader, queue, options);
        if let Some(path) = &self.once {
            return self.once(&app, path).await;
        }
        let is_lambda = std::env::var_os(LAMBDA).is_some();
        let guard = self.guard(is_lambda)?;
        let server = Server::new(app, guard, self.max_requests.into());
        if is_lambda {
            return server.run_in_lambda().await;
        }
        let socket = Server::bind(self.address).await?;
        let address = socket.local_addr().map_err(|error| error.to_string())?;
        tracing::info!("the page is at http://{address}");
        server.run(socket, stop).await;
        Ok(())
    }

    /// Says who may ask. The error says what is missing.
    fn guard(&self, is_lambda: bool) -> Result<Guard, String> {
        let is_loopback = self.address.ip().is_loopback();
        let auth = match self.auth {
            // IAM has judged whoever invokes the function.
            None if is_lambda => AuthKind::Upstream,
            None if is_loopback => AuthKind::None,
            None | Some(AuthKind::None) if !is_loopback && !is_lambda => {
                return Err(format!(
                    "others can reach {}, so say who may ask: --auth token, or --auth upstream if somebody in front \
                     has judged",
                    self.address
                ));
            }
            None => AuthKind::None,
            Some(auth) => auth,
        };
        let hosts = (auth != AuthKind::Upstream || !self.allowed_hosts.is_empty()).then(|| {
            let own = LOOPBACK_HOSTS.iter().map(|host| (*host).to_owned());
            let address = self.address.ip();
            let address = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
            own.chain([address]).chain(self.allowed_hosts.iter().map(|host| host.to_ascii_lowercase())).collect()
        });
        let auth = match auth {
            AuthKind::None => Auth::Open,
            AuthKind::Upstream => Auth::Upstream,
            AuthKind::Token => Auth::by_token(&self.token()?)?,
        };
        Ok(Guard { auth, hosts })
    }

    fn token(&self) -> Result<String, String> {
        match &self.token_file {
            Some(file) => {
                std::fs::read_to_string(file).map_err(|error| format!("the token in {}: {error}", file.display()))
            }
            None => std::env::var(TOKEN)
                .map_err(|_| format!("--auth token needs a token: give --token-file, or set {TOKEN}")),
        }
    }

    async fn once(&self, app: &App, url: &str) -> Result<(), String> {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let asked = Asked { path, query, accept: "", base: &format!("http://{}", self.address), stands_alone: true };
        let body =
            app.answer(asked, &ReadCost::default()).await.map_err(|problem| format!("{url}: {}", problem.detail))?;
        let text = String::from_utf8_lossy(&body.text);
        match &self.output {
            Some(file) => std::fs::write(file, text.as_bytes())
                .map_err(|error| format!("cannot write {}: {error}", file.display())),
            None => {
                print(text.trim_end());
                Ok(())
            }
        }
    }
}

//! The engine's API as requests: those of the host's clients, of distros of WSL 2, whose kernel keeps the engine from nothing, and on the
//! socket for containers.
//!
//! A request is read, judged by the [`Rules`] of where it came in, and written anew by hyper: what two readers could read
//! differently does not get through. Answers, and connections that stop being HTTP (`docker run -it`, builds), are passed on as they come.
//!
//! In reading order: this file (one client's connection), [`judge`] (what is asked of the engine before a request may go on), [`ends`]
//! (a client that has ended its half).

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use eci_contract::errors::chain;
use eci_link::pipe;
use eci_policy::rules::engine_command::Commands;
use eci_service::log::{self, Level};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn as client;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::uri::PathAndQuery;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, on};
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

use self::ends::{ClientEnd, Ends, EngineEnd, Watched};
use self::judge::{Judged, Refused, Told};
use crate::containers::Place;
use crate::copies;

pub mod ends;
pub mod judge;

/// What goes to the engine: a body as it comes, or one that was read whole.
type Question = Watched<Either<Incoming, Full<Bytes>>>;
/// What goes to the client: the engine's body as it comes, or a message of ours.
type Answer = Watched<Either<Incoming, Full<Bytes>>>;

/// How long, and how much of it, the body of a request that was refused is taken in. Go's server waits as long.
const DRAINED: Duration = Duration::from_millis(500);
const DRAINED_BYTES: usize = 16 * 1024 * 1024;

/// How long a client may take with the head of a request, and do nothing between two: as long as the engine gives it.
const HEAD_DEADLINE: Duration = Duration::from_secs(300);

/// Why a connection came to no ordinary end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine is not there.
    #[error("cannot connect to `{}`", .socket.display())]
    Connect {
        /// Its socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It did not answer.
    #[error("the engine gave no answer")]
    Silent(#[source] hyper::Error),
    /// The client went within its question.
    #[error("the request broke off")]
    BrokeOff(#[source] hyper::Error),
}

/// What requests are judged by.
#[derive(Clone, Debug)]
pub enum Rules {
    /// Of the host: [`eci_policy::rules::driver_name`]. Where the engine may mount what, its AppArmor profile says.
    Host,
    /// Of a distro of WSL 2: [`eci_policy::rules::engine_mount`].
    Distro,
    /// Of a container: [`eci_policy::rules::engine_command`].
    Container {
        /// What it may ask for.
        commands: Arc<Commands>,
        /// Its place among those that are served at once, kept for as long as any part of the connection lives.
        place: Arc<Place>,
    },
}

/// Serves one client to its end.
pub async fn serve<T>(client: T, engine: &Path, rules: Rules)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let ends = Arc::new(Ends::default());
    let connection = Arc::new(Engine {
        socket: engine.to_owned(),
        rules,
        ends: Arc::clone(&ends),
        sender: Mutex::default(),
    });
    let service = service_fn(move |request: Request<Incoming>| {
        let connection = Arc::clone(&connection);
        // At once, before hyper reads on and finds the client's end.
        connection.ends.begin(request.body().is_end_stream());
        async move { Ok::<_, Infallible>(connection.answer(request).await) }
    });
    let io = TokioIo::new(ClientEnd::new(client, ends));
    let served = http1::Builder::new()
        .preserve_header_case(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(io, service)
        .with_upgrades();
    // That a client is gone, or speaks something else, is its own affair: it has been told as far as its protocol allows.
    drop(served.await);
}

/// The engine, for one client.
struct Engine {
    socket: PathBuf,
    rules: Rules,
    ends: Arc<Ends>,
    /// A connection that takes another request.
    sender: Mutex<Option<SendRequest<Question>>>,
}

impl Engine {
    /// Never fails: whatever goes wrong is an answer.
    async fn answer(&self, request: Request<Incoming>) -> Response<Answer> {
        let answer = match self.pass_on(request).await {
            Ok(answer) => answer.map(Either::Left),
            Err(refusal) => refusal.into_response().map(Either::Right),
        };
        answer.map(|body| Watched::answer(body, Arc::clone(&self.ends)))
    }

    async fn pass_on(&self, request: Request<Incoming>) -> Result<Response<Incoming>, Refusal> {
        let (mut head, body) = request.into_parts();
        let question = |body| Watched::question(body, Arc::clone(&self.ends));
        let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
        let judged = match &self.rules {
            Rules::Host => Ok(judge::of_host(path)),
            Rules::Distro => judge::request(path, query, &self.socket).await,
            Rules::Container { commands, .. } => judge::command(head.method.as_str(), &head.uri, commands),
        };
        let judged = match judged {
            Ok(judged) => judged,
            Err(refusal) => {
                // Before anything else: a client that goes away ends what is done for it.
                if let (Some(refused), Rules::Container { place, .. }) = (&refusal.refused, &self.rules) {
                    place.write_down(refused, &self.socket);
                }
                drain(question(Either::Left(body))).await;
                return Err(refusal);
            }
        };
        let body = match judged {
            Judged::Plain => {
                let target = head.uri.path_and_query().map(PathAndQuery::as_str).unwrap_or_default();
                if let Some(name) = copies::looked_into(target) {
                    copies::refresh(&name).await;
                }
                Either::Left(body)
            }
            Judged::LooksInto { id, path } => {
                copies::refresh(&id).await;
                head.uri = with_path(&head.uri, &path)?;
                Either::Left(body)
            }
            Judged::ByQuery => {
                head.headers.remove(CONTENT_TYPE);
                Either::Left(body)
            }
            Judged::AsJson => {
                head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Either::Left(body)
            }
            Judged::ByBody(judge) => {
                let bytes = read_whole(question(Either::Left(body))).await?;
                judge::told(judge(&bytes))?;
                head.headers.remove(TRANSFER_ENCODING);
                head.headers.insert(CONTENT_LENGTH, bytes.len().into());
                Either::Right(Full::new(bytes))
            }
        };
        let path = head.uri.path_and_query().cloned();
        head.uri = Uri::from(path.ok_or_else(|| Refusal::bad("the request has no path"))?);
        // A client of HTTP/1.0 need not name a host, nor keep the connection; the engine's connection is our own.
        head.version = Version::HTTP_11;
        head.headers.entry(HOST).or_insert(HeaderValue::from_static("engine"));
        if !head.headers.contains_key(UPGRADE) {
            head.headers.remove(CONNECTION);
        }
        let mut request = Request::from_parts(head, question(body));
        let client = on(&mut request);
        let mut answer = self.ask(request).await?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.ends.upgraded();
            self.sender.lock().await.take();
            let (engine, rules) = (on(&mut answer), self.rules.clone());
            tokio::spawn(async move {
                join(client, engine).await;
                drop(rules);
            });
        }
        Ok(answer)
    }

    async fn ask(&self, request: Request<Question>) -> Result<Response<Incoming>, Error> {
        let mut slot = self.sender.lock().await;
        let mut kept = slot.take();
        let usable = match &mut kept {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        let mut sender = match kept.filter(|_| usable) {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let answer = match sender.try_send_request(request).await {
            Ok(answer) => answer,
            // A kept connection that the engine has just closed: nothing of this was sent.
            Err(mut error) => match error.take_message() {
                Some(request) => {
                    sender = self.connect().await?;
                    sender.send_request(request).await.map_err(unanswered)?
                }
                None => return Err(unanswered(error.into_error())),
            },
        };
        *slot = Some(sender);
        Ok(answer)
    }

    async fn connect(&self) -> Result<SendRequest<Question>, Error> {
        let failed = |source| Error::Connect { socket: self.socket.clone(), source };
        let engine = UnixStream::connect(&self.socket).await.map_err(failed)?;
        let engine = EngineEnd::new(engine, Arc::clone(&self.ends)).map_err(failed)?;
        let (sender, connection) = client::http1::Builder::new()
            .preserve_header_case(true)
            .handshake(TokioIo::new(engine))
            .await
            .map_err(Error::Silent)?;
        // It ends with the sender, or with the engine.
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }
}

/// Why a question has no answer: hyper calls what fails with the client's body its user's.
fn unanswered(error: hyper::Error) -> Error {
    if error.is_user() { Error::BrokeOff(error) } else { Error::Silent(error) }
}

/// Joins two connections that stopped being HTTP.
async fn join(client: OnUpgrade, engine: OnUpgrade) {
    if let (Ok(client), Ok(engine)) = (client.await, engine.await) {
        drop(pipe(&mut TokioIo::new(client), &mut TokioIo::new(engine)).await);
    }
}

fn with_path(uri: &Uri, path: &str) -> Result<Uri, Refusal> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = PathAndQuery::try_from(format!("{path}{query}"));
    path.map(Uri::from).map_err(|_| Refusal::bad("the request's path is not understood"))
}

/// Takes in what a client that is refused is still sending, some of it and not for long: it would not hear the refusal while it writes. Nothing
/// of it is kept, for many may be refused at once.
async fn drain(mut body: Question) {
    let taken = async {
        let mut left = DRAINED_BYTES;
        while left > 0 {
            let Some(Ok(frame)) = body.frame().await else { break };
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        }
    };
    drop(timeout(DRAINED, taken).await);
}

async fn read_whole(mut body: Question) -> Result<Bytes, Refusal> {
    let most = eci_policy::rules::engine_mount::MAX_BODY_BYTES;
    match Limited::new(&mut body, most).collect().await {
        Ok(read) => Ok(read.to_bytes()),
        Err(_) => {
            drain(body).await;
            Err(Refusal::bad(&format!("the request broke off, or is longer than {most} bytes")))
        }
    }
}

/// An answer of our own.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    message: String,
    /// The rule that a container's request was refused by.
    refused: Option<Refused>,
}

impl Refusal {
    fn new(status: StatusCode, message: String) -> Self {
        Self { status, message, refused: None }
    }

    fn bad(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message.to_owned())
    }

    fn forbidden(message: String) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// As the engine says it.
    fn no_container(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("No such container: {name}"))
    }

    /// In the engine's own words and form, which its clients show.
    fn into_response(self) -> Response<Full<Bytes>> {
        let body = serde_json::json!({ "message": self.message }).to_string();
        let mut response = Response::new(Full::new(body.into()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Self { refused: Some(refused.clone()), ..Self::forbidden(refused.message) }
    }
}

impl From<Told> for Refusal {
    fn from(told: Told) -> Self {
        log::line(Level::Warn, &format!("refused: {}", told.0));
        Self::forbidden(told.0)
    }
}

impl From<copies::Error> for Refusal {
    fn from(error: copies::Error) -> Self {
        log::failure(Level::Warn, "a request could not be judged", &error);
        Self::new(StatusCode::SERVICE_UNAVAILABLE, chain(&error))
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        // That is the client's own affair.
        if !matches!(error, Error::BrokeOff(_)) {
            log::failure(Level::Warn, "a client was not served", &error);
        }
        match error {
            Error::BrokeOff(_) => Self::bad(&error.to_string()),
            Error::Connect { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, crate::serve::UNAVAILABLE.to_owned())
            }
            Error::Silent(_) => Self::new(StatusCode::BAD_GATEWAY, chain(&error)),
        }
    }
}

#[cfg(test)]
mod tests;

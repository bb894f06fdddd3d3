//! Whole routers over loopback, with servers that speak as much of PostgreSQL as it takes; etcd's part is played by handing views in.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::cluster::{Cluster, Leader, Member, Role, State};
use super::door::{Entrance, MARGIN};
use super::hub::Hub;
use super::proxy::{self, Ends};
use super::session::Desk;
use super::table::{Door, Rules};
use super::wire;
use crate::clock::SystemClock;
use crate::config::settings::HostPort;
use crate::net::Tcp;
use crate::task::{Owned, Spawn, Tokio};

/// Far more than anything here takes, and little enough to wait for when it is broken.
const SOON: Duration = Duration::from_secs(10);

/// How a fake server receives those who connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// Takes sessions and echoes.
    Serves,
    /// "The database system is shutting down".
    ShutsDown,
    /// Accepts and closes without a word.
    Slams,
    /// Accepts and says nothing.
    Hangs,
    /// Takes sessions, and is a standby.
    Standby,
    /// Another error than one of coming and going.
    Full,
    /// Agrees to encryption.
    Tls,
}

/// A server: what it was sent first by each connection, and who is connected.
struct Server {
    at: SocketAddr,
    mood: Arc<Mutex<Mood>>,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    _task: Owned,
}

const SSL: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn startup() -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 17, 0, 3, 0, 0];
    bytes.extend_from_slice(b"user\0me\0\0");
    bytes
}

/// Everything from the first answer to ReadyForQuery.
fn welcome(standby: bool) -> Vec<u8> {
    let mut bytes = message(b'R', &[0; 4]);
    let flag: &[u8] = if standby {
        b"in_hot_standby\0on\0"
    } else {
        b"in_hot_standby\0off\0"
    };
    bytes.extend(message(b'S', flag));
    bytes.extend(message(b'K', b"pid!key!"));
    bytes.extend(message(b'Z', b"I"));
    bytes
}

impl Server {
    async fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let mood = Arc::new(Mutex::new(mood));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn({
            let (mood, heard) = (Arc::clone(&mood), Arc::clone(&heard));
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (mood, heard) = (*mood.lock().unwrap(), Arc::clone(&heard));
                    // Ends with the connection; the test's runtime ends it at the latest.
                    tokio::spawn(async move { drop(receive(stream, mood, heard).await) });
                }
            }
        });
        Self {
            at,
            mood,
            heard,
            _task: Owned(task.abort_handle()),
        }
    }

    fn becomes(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn heard(&self) -> Vec<Vec<u8>> {
        self.heard.lock().unwrap().clone()
    }
}

async fn receive(mut stream: TcpStream, mood: Mood, heard: Arc<Mutex<Vec<Vec<u8>>>>) -> io::Result<()> {
    let mut first = vec![0; 1024];
    loop {
        let count = stream.read(&mut first).await?;
        if count == 0 {
            return Ok(());
        }
        heard.lock().unwrap().push(first[..count].to_vec());
        if first[..count] == SSL && mood != Mood::Tls {
            stream.write_all(b"N").await?;
            continue;
        }
        break;
    }
    match mood {
        Mood::Serves => stream.write_all(&welcome(false)).await?,
        Mood::Standby => stream.write_all(&welcome(true)).await?,
        Mood::ShutsDown => {
            return stream
                .write_all(&wire::fatal("57P03", "the database system is shutting down"))
                .await;
        }
        Mood::Full => return stream.write_all(&wire::fatal("53300", "too many clients")).await,
        Mood::Slams => return Ok(()),
        Mood::Hangs => return std::future::pending().await,
        Mood::Tls => stream.write_all(b"S").await?,
    }
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await?;
    // The client has closed its side; a last word shows that ours is open.
    to.write_all(b"bye").await
}

/// A router and the cluster that it believes in.
struct Router {
    hub: Arc<Hub>,
    primary: SocketAddr,
    replicas: SocketAddr,
    _tasks: Vec<Owned>,
}

struct Options {
    rules: Rules,
    connect_timeout: Duration,
    idle_timeout: Option<Duration>,
    send_proxy: bool,
    accept_proxy: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rules: Rules {
                hold: Duration::from_secs(8),
                max_waiting: 50,
                max_connections: 50,
                maximum_lag: None,
                fall_back: false,
            },
            connect_timeout: Duration::from_secs(3),
            idle_timeout: None,
            send_proxy: false,
            accept_proxy: false,
        }
    }
}

impl Router {
    async fn open(options: Options) -> Self {
        let hub = Hub::new(options.rules, Arc::new(SystemClock));
        let desk = Arc::new(Desk {
            hub: Arc::clone(&hub),
            dial: Arc::new(Tcp),
            connect_timeout: options.connect_timeout,
            greeting_timeout: Duration::from_secs(2),
            idle_timeout: options.idle_timeout,
            send_proxy: options.send_proxy,
            accept_proxy: if options.accept_proxy {
                vec!["127.0.0.0/8".parse().unwrap()]
            } else {
                Vec::new()
            },
        });
        let spawn: Arc<dyn Spawn> = Arc::new(Tokio);
        let mut tasks = Vec::new();
        let mut doors = Vec::new();
        for door in [Door::Primary, Door::Replicas] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let at = listener.local_addr().unwrap();
            doors.push(at);
            let entrance = Entrance {
                door,
                listener: Box::new(listener),
                at: HostPort {
                    host: "127.0.0.1".to_owned(),
                    port: at.port(),
                },
                desk: Arc::clone(&desk),
                room: Arc::new(Semaphore::new(MARGIN)),
                tasks: Arc::clone(&spawn),
                dropped: Arc::new(AtomicU64::new(0)),
            };
            tasks.push(Owned(tokio::spawn(entrance.serve()).abort_handle()));
        }
        let timer = Arc::clone(&hub);
        tasks.push(Owned(
            tokio::spawn(async move { timer.keep_time().await }).abort_handle(),
        ));
        Self {
            hub,
            primary: doors[0],
            replicas: doors[1],
            _tasks: tasks,
        }
    }

    /// `servers` are n1, n2, …; the one of the index `leader` leads, if any does.
    fn view(&self, leader: Option<usize>, servers: &[&Server]) {
        self.hub.view(cluster(leader, servers));
    }
}

fn cluster(leader: Option<usize>, servers: &[&Server]) -> Cluster {
    let mut members = BTreeMap::new();
    for (index, server) in servers.iter().enumerate() {
        let primary = leader == Some(index);
        let member = Member {
            at: HostPort {
                host: server.at.ip().to_string(),
                port: server.at.port(),
            },
            role: if primary { Role::Primary } else { Role::Replica },
            state: State::Running,
            streaming: !primary,
            balanced: true,
            lag: 0,
        };
        members.insert(format!("n{}", index + 1), member);
    }
    Cluster {
        leader: leader.map(|index| Leader {
            name: format!("n{}", index + 1),
            reign: i64::try_from(index).unwrap() + 1,
        }),
        stopping: None,
        members,
    }
}

/// A client that has sent its startup packet.
async fn client(at: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(&startup()).await.unwrap();
    stream
}

async fn expect(stream: &mut TcpStream, wanted: &[u8]) {
    let mut got = vec![0; wanted.len()];
    let read = timeout(SOON, stream.read_exact(&mut got)).await.expect("in time");
    read.expect("the whole of it");
    assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(wanted));
}

/// Everything until the other side closes or resets.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    // A reset is an end too.
    let _ = timeout(SOON, stream.read_to_end(&mut got))
        .await
        .expect("an end in time");
    got
}

/// Lets a session begin on its own, so that it can be awaited while the test goes on.
fn begins(at: SocketAddr) -> JoinHandle<TcpStream> {
    tokio::spawn(async move {
        let mut stream = client(at).await;
        expect(&mut stream, &welcome(false)).await;
        stream
    })
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn a_session_passes_both_ways_and_half_closes() {
    let server = Server::start(Mood::Serves).await;
    let router = Router::open(Options::default()).await;
    router.view(Some(0), &[&server]);
    let mut session = begins(router.primary).await.unwrap();
    session.write_all(b"to and fro").await.unwrap();
    expect(&mut session, b"to and fro").await;
    session.shutdown().await.unwrap();
    assert_eq!(rest(&mut session).await, b"bye");
    assert_eq!(server.heard(), [startup()]);
    let traffic = router.hub.traffic(Door::Primary);
    assert_eq!(traffic.sent.load(Ordering::Relaxed), 10);
    assert_eq!(
        traffic.received.load(Ordering::Relaxed),
        welcome(false).len() as u64 + 13
    );
    // The session has left the table.
    timeout(SOON, async {
        while !router.hub.look(|table, _| table.census().0.is_empty()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_client_is_held_while_there_is_no_primary() {
    let server = Server::start(Mood::Serves).await;
    let router = Router::open(Options::default()).await;
    let session = begins(router.primary);
    pause().await;
    assert!(!session.is_finished());
    router.view(None, &[&server]);
    pause().await;
    assert!(!session.is_finished());
    router.view(Some(0), &[&server]);
    timeout(SOON, session).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_is_going_is_not_shown_to_the_client() {
    for mood in [Mood::ShutsDown, Mood::Slams] {
        let server = Server::start(mood).await;
        let router = Router::open(Options::default()).await;
        router.view(Some(0), &[&server]);
        let session = begins(router.primary);
        pause().await;
        assert!(!session.is_finished());
        server.becomes(Mood::Serves);
        timeout(SOON, session).await.unwrap().unwrap();
        assert!(server.heard().len() > 1, "it was tried again");
    }
}

#[tokio::test]
async fn a_server_that_refuses_connections_or_hangs_is_tried_until_another_leads() {
    let (old, new) = (
        Server::start(Mood::Hangs).await,
        Server::start(Mood::Serves).await,
    );
    let router = Router::open(Options::default()).await;
    router.view(Some(0), &[&old, &new]);
    let hanging = begins(router.primary);
    pause().await;
    router.view(Some(1), &[&old, &new]);
    timeout(SOON, hanging).await.unwrap().unwrap();

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = Server {
        at: closed.local_addr().unwrap(),
        mood: Arc::new(Mutex::new(Mood::Slams)),
        heard: Arc::default(),
        _task: Owned(tokio::spawn(async {}).abort_handle()),
    };
    drop(closed);
    let router = Router::open(Options::default()).await;
    router.view(Some(0), &[&nobody, &new]);
    let refused = begins(router.primary);
    pause().await;
    assert!(!refused.is_finished());
    router.view(Some(1), &[&nobody, &new]);
    timeout(SOON, refused).await.unwrap().unwrap();
}

#[tokio::test]
async fn every_other_refusal_reaches_the_client() {
    let server = Server::start(Mood::Full).await;
    let router = Router::open(Options::default()).await;
    router.view(Some(0), &[&server]);
    let mut session = client(router.primary).await;
    assert_eq!(rest(&mut session).await, wire::fatal("53300", "too many clients"));
    assert_eq!(server.heard().len(), 1);
}

#[tokio::test]
async fn sessions_of_a_deposed_primary_are_reset_and_those_of_readers_are_not() {
    let (n1, n2) = (
        Server::start(Mood::Serves).await,
        Server::start(Mood::Serves).await,
    );
    let router = Router::open(Options::default()).await;
    router.view(Some(0), &[&n1, &n2]);
    let mut writer = begins(router.primary).await.unwrap();
    let mut reader = begins(router.replicas).await.unwrap();
    router.view(None, &[&n1, &n2]);
    // Running as a replica, by its own word, it has been deposed; so this must not be the view of a leader that is lost for a moment.
    assert_eq!(rest(&mut writer).await, b"");
    let mut writer = {
        router.view(Some(0), &[&n1, &n2]);
        begins(router.primary).await.unwrap()
    };
    router.hub.view(Cluster::default());
    writer.write_all(b"still here").await.unwrap();
    expect(&mut writer, b"still here").await;
    router.view(Some(1), &[&n1, &n2]);
    assert_eq!(rest(&mut writer).await, b"");
    reader.write_all(b"reading on").await.unwrap();
    expect(&mut reader, b"reading on").await;
}

#[tokio::test]
async fn a_standby_is_never_taken_for_the_primary() {
    let server = Server::start(Mood::Standby).await;
    let router = Router::open(Options::default()).await;
    router.view(Some(0), &[&server]);
    let mut session = client(router.primary).await;
    assert_eq!(rest(&mut session).await, b"");
    // The same is what readers want.
    router.view(None, &[&server]);
    let mut session = client(router.replicas).await;
    expect(&mut session, &welcome(true)).await;
}

#[tokio::test]
async fn a_client_that_waits_too_long_is_told_why() {
    let options = Options::default();
    let rules = Rules {
        hold: Duration::from_millis(200),
        max_waiting: 1,
        ..options.rules
    };
    let router = Router::open(Options { rules, ..options }).await;
    let mut first = client(router.primary).await;
    pause().await;
    let mut second = client(router.primary).await;
    let told = String::from_utf8_lossy(&rest(&mut second).await).into_owned();
    assert!(
        told.contains("C53300") && told.contains("router.max_waiting"),
        "{told}"
    );
    let told = String::from_utf8_lossy(&rest(&mut first).await).into_owned();
    assert!(told.contains("C57P03") && told.contains("router.hold"), "{told}");
    let figures = router.hub.look(|table, _| table.figures().at(Door::Primary));
    assert_eq!((figures.accepted, figures.refused.len()), (2, 2));
}

#[tokio::test]
async fn a_client_that_gives_up_leaves_its_place() {
    let options = Options::default();
    let rules = Rules {
        max_waiting: 1,
        ..options.rules
    };
    let router = Router::open(Options { rules, ..options }).await;
    drop(client(router.primary).await);
    pause().await;
    let gave_up = router
        .hub
        .look(|table, _| table.figures().at(Door::Primary).gave_up);
    assert_eq!(gave_up, 1);
    let waits = begins(router.primary);
    let server = Server::start(Mood::Serves).await;
    router.view(Some(0), &[&server]);
    timeout(SOON, waits).await.unwrap().unwrap();
}

#[tokio::test]
async fn there_is_a_limit_to_connections() {
    let server = Server::start(Mood::Serves).await;
    let options = Options::default();
    let rules = Rules {
        max_connections: 1,
        ..options.rules
    };
    let router = Router::open(Options { rules, ..options }).await;
    router.view(Some(0), &[&server]);
    let first = begins(router.primary).await.unwrap();
    let mut second = client(router.primary).await;
    let told = String::from_utf8_lossy(&rest(&mut second).await).into_owned();
    assert!(
        told.contains("C53300") && told.contains("router.max_connections"),
        "{told}"
    );
    drop(first);
    pause().await;
    begins(router.primary).await.unwrap();
}

#[tokio::test]
async fn encryption_is_the_servers_affair() {
    // The server declines: the session goes on in the clear, over the same connection, and can still be placed elsewhere.
    let (n1, n2) = (
        Server::start(Mood::ShutsDown).await,
        Server::start(Mood::Serves).await,
    );
    let router = Router::open(Options::default()).await;
    router.view(Some(0), &[&n1, &n2]);
    let mut session = TcpStream::connect(router.primary).await.unwrap();
    session.write_all(&SSL).await.unwrap();
    expect(&mut session, b"N").await;
    session.write_all(&startup()).await.unwrap();
    pause().await;
    assert_eq!(n1.heard()[..2], [SSL.to_vec(), startup()]);
    router.view(Some(1), &[&n1, &n2]);
    expect(&mut session, &welcome(false)).await;
    assert_eq!(n2.heard(), [startup()]);

    // It agrees: what follows is not looked at.
    n2.becomes(Mood::Tls);
    let mut session = TcpStream::connect(router.primary).await.unwrap();
    session.write_all(&SSL).await.unwrap();
    expect(&mut session, b"S").await;
    session.write_all(b"\x16\x03\x01").await.unwrap();
    expect(&mut session, b"\x16\x03\x01").await;
    // TLS at once.
    n2.becomes(Mood::Serves);
    let mut session = TcpStream::connect(router.primary).await.unwrap();
    session.write_all(b"\x16\x03\x01").await.unwrap();
    expect(&mut session, &welcome(false)).await;
}

#[tokio::test]
async fn a_request_to_cancel_goes_where_the_session_is() {
    let (n1, n2, n3) = (
        Server::start(Mood::Serves).await,
        Server::start(Mood::Serves).await,
        Server::start(Mood::Serves).await,
    );
    let router = Router::open(Options::default()).await;
    router.view(Some(0), &[&n1, &n2, &n3]);
    let session = begins(router.replicas).await.unwrap();
    pause().await;
    let mut request = vec![0, 0, 0, 16, 4, 210, 22, 46];
    request.extend_from_slice(b"pid!key!");
    let send = async |request: &[u8]| {
        let mut cancel = TcpStream::connect(router.replicas).await.unwrap();
        cancel.write_all(request).await.unwrap();
        assert_eq!(rest(&mut cancel).await, b"");
    };
    send(&request).await;
    assert_eq!(n2.heard(), [startup(), request.clone()]);
    assert_eq!(n3.heard(), [] as [Vec<u8>; 0]);
    // Nobody's key: whoever it is may know it.
    drop(session);
    pause().await;
    send(&request).await;
    assert_eq!(n3.heard(), [request]);
}

#[tokio::test]
async fn the_client_is_told_of_by_the_proxy_protocol_and_believed_from_a_load_balancer() {
    let server = Server::start(Mood::Serves).await;
    let router = Router::open(Options {
        send_proxy: true,
        accept_proxy: true,
        ..Options::default()
    })
    .await;
    router.view(Some(0), &[&server]);
    let ends = Ends {
        client: "192.0.2.7:1234".parse().unwrap(),
        server: "192.0.2.1:5000".parse().unwrap(),
    };
    let mut session = TcpStream::connect(router.primary).await.unwrap();
    session
        .write_all(&[proxy::header(ends), startup()].concat())
        .await
        .unwrap();
    expect(&mut session, &welcome(false)).await;
    let first = server.heard().concat();
    assert!(first.starts_with(&proxy::header(ends)), "{first:?}");
    // Without a header it is not let in.
    let mut session = client(router.primary).await;
    assert_eq!(rest(&mut session).await, b"");
}

#[tokio::test]
async fn a_session_in_which_nothing_passes_ends_if_so_configured() {
    let server = Server::start(Mood::Serves).await;
    let router = Router::open(Options {
        idle_timeout: Some(Duration::from_millis(300)),
        ..Options::default()
    })
    .await;
    router.view(Some(0), &[&server]);
    let mut session = begins(router.primary).await.unwrap();
    for _ in 0..5 {
        pause().await;
        session.write_all(b".").await.unwrap();
        expect(&mut session, b".").await;
    }
    assert_eq!(rest(&mut session).await, b"");
}

#[tokio::test]
async fn who_does_not_speak_postgresql_costs_a_connection_and_nothing_else() {
    let server = Server::start(Mood::Serves).await;
    let router = Router::open(Options::default()).await;
    router.view(Some(0), &[&server]);
    for words in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"", b"\0\0\0"] {
        let mut stream = TcpStream::connect(router.primary).await.unwrap();
        stream.write_all(words).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(rest(&mut stream).await, b"");
    }
    assert_eq!(server.heard(), [] as [Vec<u8>; 0]);
    begins(router.primary).await.unwrap();
}

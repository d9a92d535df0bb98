use super::*;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use clap::Parser;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use tempfile::TempDir;

use crate::exit::Exit;

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: CommonArgs,
}

fn options(line: &str) -> CommonArgs {
    let argv = std::iter::once("test").chain(line.split_whitespace());
    Options::try_parse_from(argv).unwrap().common
}

/// A directory, and a path for a socket in it.
fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    (directory, path)
}

fn open(path: &Path, more: &str, compat: Compat) -> Result<Vec<Endpoint>, StartError> {
    open_all(&options(&format!("-s {} {more}", path.display())), compat)
}

fn open_one(path: &Path) -> Result<Endpoint, StartError> {
    open(path, "", Compat::default()).map(|mut endpoints| endpoints.remove(0))
}

const INDEX: Compat = Compat {
    index_symlink: true,
};

/// The names in a directory, sorted.
fn names(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn dead_socket(path: &Path) {
    drop(UnixListener::bind(path).unwrap());
    assert!(UnixStream::connect(path).is_err());
}

/// Whether a frontend that connects to `path` is accepted by `endpoint`, and bytes flow.
fn serves(endpoint: &mut Endpoint, path: &Path) -> bool {
    let Ok(mut frontend) = UnixStream::connect(path) else {
        return false;
    };
    let mut served = endpoint.accept().unwrap().unwrap();
    frontend.write_all(b"hello").unwrap();
    let mut bytes = [0; 5];
    served.read_exact(&mut bytes).unwrap();
    &bytes == b"hello"
}

#[test]
fn a_socket_serves_any_number_of_frontends_and_is_removed_at_the_end() {
    let (directory, path) = place();
    let mut endpoint = open_one(&path).unwrap();
    assert!(endpoint.accept().unwrap().is_none());
    for _ in 0..3 {
        assert!(serves(&mut endpoint, &path));
    }
    assert!(!endpoint.is_exhausted());
    assert_eq!(endpoint.to_string(), path.display().to_string());
    assert_eq!(names(&directory), ["x.sock"]);
    drop(endpoint);
    assert!(names(&directory).is_empty());
}

#[test]
fn a_socket_is_not_inherited_by_children() {
    let (_directory, path) = place();
    let endpoint = open_one(&path).unwrap();
    assert!(close_on_exec(endpoint.listener().unwrap()));
}

fn close_on_exec(descriptor: impl AsFd) -> bool {
    let flags = fcntl(descriptor, FcntlArg::F_GETFD).unwrap();
    FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC)
}

#[test]
fn a_socket_in_use_is_refused_and_undisturbed() {
    let (directory, path) = place();
    let mut first = open_one(&path).unwrap();
    let error = open_one(&path).unwrap_err();
    assert_eq!(error.exit(), Exit::Missing);
    assert!(error.to_string().contains("x.sock is in use"), "{error}");
    assert_eq!(names(&directory), ["x.sock"]);
    drop(first.accept().unwrap().unwrap()); // the probe
    assert!(serves(&mut first, &path));
}

#[test]
fn a_listener_with_a_full_backlog_is_in_use() {
    let (_directory, path) = place();
    let endpoint = open_one(&path).unwrap();
    let mut waiting = Vec::new();
    loop {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
        let client = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_NONBLOCK,
            None,
        )
        .unwrap();
        let full = connect(client.as_raw_fd(), &UnixAddr::new(&path).unwrap()).is_err();
        waiting.push(client);
        if full {
            break;
        }
    }
    assert!(
        open_one(&path)
            .unwrap_err()
            .to_string()
            .contains("is in use")
    );
    drop(endpoint);
}

#[test]
fn a_socket_for_datagrams_in_use_is_refused() {
    let (_directory, path) = place();
    let _datagrams = UnixDatagram::bind(&path).unwrap();
    assert!(
        open_one(&path)
            .unwrap_err()
            .to_string()
            .contains("is in use")
    );
}

#[test]
fn a_dead_socket_is_replaced() {
    let (directory, path) = place();
    dead_socket(&path);
    let mut endpoint = open_one(&path).unwrap();
    assert!(serves(&mut endpoint, &path));
    assert_eq!(names(&directory), ["x.sock"]);
}

#[test]
fn what_is_no_socket_is_never_removed() {
    let (_directory, path) = place();
    let target = path.with_extension("target");
    fs::write(&target, "precious").unwrap();
    let makers: [(&str, &dyn Fn()); 4] = [
        ("a regular file", &|| fs::write(&path, "precious").unwrap()),
        ("a directory", &|| fs::create_dir(&path).unwrap()),
        ("a named pipe", &|| {
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        }),
        ("a symbolic link to something else", &|| {
            symlink(&target, &path).unwrap()
        }),
    ];
    for (kind, make) in makers {
        make();
        let before = fs::symlink_metadata(&path).unwrap().ino();
        let error = open_one(&path).unwrap_err();
        assert!(error.to_string().contains(kind), "{error}");
        assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), before, "{kind}");
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
    }
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
}

#[test]
fn a_file_that_replaced_our_socket_is_not_removed() {
    let (directory, path) = place();
    let endpoint = open_one(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(endpoint);
    assert_eq!(names(&directory), ["x.sock"]);
}

#[test]
fn a_socket_is_removed_also_after_its_directory_was_renamed() {
    let (directory, _) = place();
    let inner = directory.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let endpoint = open_one(&inner.join("x.sock")).unwrap();
    let renamed = directory.path().join("renamed");
    fs::rename(&inner, &renamed).unwrap();
    assert!(renamed.join("x.sock").exists());
    drop(endpoint);
    assert!(!renamed.join("x.sock").exists());
}

#[test]
fn a_missing_directory_is_named() {
    let (_directory, path) = place();
    let error = open_one(&path.join("y.sock")).unwrap_err();
    assert_eq!(error.exit(), Exit::Missing);
    assert!(
        error
            .to_string()
            .starts_with("cannot open the socket's directory "),
        "{error}"
    );
}

#[test]
fn of_daemons_that_start_at_once_on_one_path_exactly_one_wins() {
    for round in 0..50 {
        let (directory, path) = place();
        if round % 2 == 0 {
            dead_socket(&path);
        }
        let barrier = Barrier::new(8);
        let results: Vec<_> = thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        open_one(&path)
                    })
                })
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap())
                .collect()
        });
        let (mut winners, losers): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!((winners.len(), losers.len()), (1, 7), "round {round}");
        for loser in losers {
            let error = loser.unwrap_err().to_string();
            assert!(error.contains("is in use"), "{error}");
        }
        let mut winner = winners.remove(0).unwrap();
        while winner.accept().unwrap().is_some() {} // the losers' probes
        assert!(serves(&mut winner, &path), "round {round}");
        assert_eq!(names(&directory), ["x.sock"]);
    }
}

#[test]
fn whoever_sees_the_socket_can_connect() {
    for _ in 0..200 {
        let (_directory, path) = place();
        thread::scope(|scope| {
            let client = scope.spawn(|| {
                while !path.exists() {
                    std::hint::spin_loop();
                }
                UnixStream::connect(&path).map(drop)
            });
            let _endpoint = open_one(&path).unwrap();
            client.join().unwrap().unwrap();
        });
    }
}

#[test]
fn a_directory_that_stays_locked_is_reported_after_a_while() {
    let (directory, path) = place();
    let other = fs::File::open(directory.path()).unwrap();
    other.lock().unwrap();
    let ours = Directory::of(&path).unwrap();
    let error = ours.lock_within(Duration::from_millis(20)).unwrap_err();
    assert_eq!(error.exit(), Exit::Missing);
    assert!(
        error
            .to_string()
            .contains("locked by another process for 20ms"),
        "{error}"
    );
    other.unlock().unwrap();
    drop(ours.lock().unwrap());
    open_one(&path).unwrap();
}

#[test]
fn mode_and_group_are_as_asked_whatever_the_umask() {
    let (_directory, path) = place();
    let cases = [
        ("--socket-mode 0600", 0o600),
        ("--socket-mode 0666", 0o666),
        ("--socket-mode 0", 0),
        ("--socket-mode 777", 0o777),
    ];
    for (line, mode) in cases {
        let _endpoint = open(&path, line, Compat::default()).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            mode,
            "{line}"
        );
    }
    let group = nix::unistd::getegid();
    let _endpoint = open(&path, &format!("--socket-group {group}"), Compat::default()).unwrap();
    let status = fs::metadata(&path).unwrap();
    assert_eq!(
        (status.gid(), status.mode() & 0o7777),
        (group.as_raw(), 0o660)
    );
}

#[test]
fn a_group_that_may_not_be_set_or_does_not_exist_leaves_nothing_behind() {
    let (directory, path) = place();
    let error = open(&path, "--socket-group no-such-group", Compat::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no group 'no-such-group' (--socket-group takes a name or a number)"
    );
    assert!(names(&directory).is_empty());
}

#[test]
fn a_root_daemon_can_give_the_socket_to_another_group() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let (_directory, path) = place();
    let _endpoint = open(
        &path,
        "--socket-group 4711 --socket-mode 640",
        Compat::default(),
    )
    .unwrap();
    let status = fs::metadata(&path).unwrap();
    assert_eq!((status.gid(), status.mode() & 0o7777), (4711, 0o640));
}

#[test]
fn the_longest_path_is_bound_and_a_dead_one_replaced() {
    let (directory, _) = place();
    let room = 107 - directory.path().as_os_str().len() - 1;
    let path = directory.path().join("x".repeat(room));
    assert_eq!(path.as_os_str().len(), 107);
    for _ in 0..2 {
        let mut endpoint = open_one(&path).unwrap();
        assert!(serves(&mut endpoint, &path));
        assert!(open_one(&path).is_err());
        drop(endpoint);
        assert!(names(&directory).is_empty());
        dead_socket(&path);
    }
}

#[test]
fn a_name_left_by_a_killed_process_of_our_number_is_replaced() {
    let (directory, path) = place();
    dead_socket(
        &directory
            .path()
            .join(format!("x.sock.{}", std::process::id())),
    );
    let mut endpoint = open_one(&path).unwrap();
    assert!(serves(&mut endpoint, &path));
    assert_eq!(names(&directory), ["x.sock"]);
}

#[test]
fn a_count_gives_indexed_sockets_only() {
    let (directory, path) = place();
    let mut endpoints = open(&path, "-c 3", INDEX).unwrap();
    assert_eq!(names(&directory), ["x.sock0", "x.sock1", "x.sock2"]);
    for (index, endpoint) in endpoints.iter_mut().enumerate() {
        assert!(serves(
            endpoint,
            &directory.path().join(format!("x.sock{index}"))
        ));
    }
    drop(endpoints);
    assert!(names(&directory).is_empty());
}

#[test]
fn one_socket_that_cannot_be_made_undoes_the_others() {
    let (directory, path) = place();
    fs::write(directory.path().join("x.sock2"), "").unwrap();
    assert!(open(&path, "-c 3", INDEX).is_err());
    assert_eq!(names(&directory), ["x.sock2"]);
}

#[test]
fn without_a_count_both_spellings_connect_where_scripts_expect_an_index() {
    let (directory, path) = place();
    let index = directory.path().join("x.sock0");
    let mut endpoints = open(&path, "", INDEX).unwrap();
    assert_eq!(fs::read_link(&index).unwrap(), Path::new("x.sock"));
    assert!(serves(&mut endpoints[0], &path));
    assert!(serves(&mut endpoints[0], &index));
    drop(endpoints);
    assert!(names(&directory).is_empty());

    let _endpoints = open(&path, "", Compat::default()).unwrap();
    assert_eq!(names(&directory), ["x.sock"]);
}

#[test]
fn an_index_link_or_dead_socket_in_the_way_is_replaced() {
    let (directory, path) = place();
    let index = directory.path().join("x.sock0");
    let makers: [(&str, &dyn Fn()); 4] = [
        ("our own link, left by a killed run", &|| {
            symlink("x.sock", &index).unwrap()
        }),
        ("a link to nothing", &|| symlink("nothing", &index).unwrap()),
        ("a dead socket", &|| dead_socket(&index)),
        ("a link to a dead socket", &|| {
            dead_socket(&directory.path().join("dead"));
            symlink("dead", &index).unwrap();
        }),
    ];
    for (kind, make) in makers {
        make();
        let mut endpoints = open(&path, "", INDEX).unwrap();
        assert!(serves(&mut endpoints[0], &index), "{kind}");
        drop(endpoints);
        assert!(
            !path.exists() && fs::symlink_metadata(&index).is_err(),
            "{kind}"
        );
    }
}

#[test]
fn what_is_in_use_or_no_socket_at_the_index_is_left_alone_and_the_socket_serves_all_the_same() {
    let (directory, path) = place();
    let index = directory.path().join("x.sock0");
    fs::write(&index, "precious").unwrap();
    let mut endpoints = open(&path, "", INDEX).unwrap();
    assert!(serves(&mut endpoints[0], &path));
    drop(endpoints);
    assert_eq!(fs::read_to_string(&index).unwrap(), "precious");

    fs::remove_file(&index).unwrap();
    let mut other = open_one(&index).unwrap();
    let endpoints = open(&path, "", INDEX).unwrap();
    drop(endpoints);
    drop(other.accept().unwrap().unwrap()); // the probe
    assert!(serves(&mut other, &index));
}

#[test]
fn an_index_link_that_was_replaced_is_not_removed() {
    let (directory, path) = place();
    let index = directory.path().join("x.sock0");
    let endpoints = open(&path, "", INDEX).unwrap();
    fs::write(directory.path().join("new"), "precious").unwrap();
    fs::rename(directory.path().join("new"), &index).unwrap();
    drop(endpoints);
    assert_eq!(fs::read_to_string(&index).unwrap(), "precious");
}

#[test]
fn a_start_that_is_refused_leaves_the_link_of_who_listens() {
    let (directory, path) = place();
    let mut endpoints = open(&path, "", INDEX).unwrap();
    assert!(open(&path, "", INDEX).is_err());
    drop(endpoints[0].accept().unwrap().unwrap()); // the probe
    assert!(serves(&mut endpoints[0], &directory.path().join("x.sock0")));
}

#[test]
fn whoever_sees_the_socket_sees_the_link() {
    let (directory, path) = place();
    let index = directory.path().join("x.sock0");
    for _ in 0..200 {
        let watcher = thread::spawn({
            let (path, index) = (path.clone(), index.clone());
            move || {
                while !path.exists() {
                    std::hint::spin_loop();
                }
                index.exists()
            }
        });
        let endpoints = open(&path, "", INDEX).unwrap();
        assert!(watcher.join().unwrap());
        drop(endpoints);
    }
}

#[test]
fn a_killed_run_with_a_link_does_not_hinder_a_run_with_a_count() {
    let (directory, path) = place();
    dead_socket(&path);
    symlink("x.sock", directory.path().join("x.sock0")).unwrap();
    let mut endpoints = open(&path, "-c 1", INDEX).unwrap();
    assert!(serves(&mut endpoints[0], &directory.path().join("x.sock0")));
}

/// Makes a descriptor look like one that came through exec.
fn pass_on(descriptor: impl Into<OwnedFd>) -> RawFd {
    let descriptor = descriptor.into();
    fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    descriptor.into_raw_fd()
}

#[test]
fn an_inherited_listening_socket_is_served_and_its_name_stays() {
    let (directory, path) = place();
    let number = pass_on(UnixListener::bind(&path).unwrap());
    let mut endpoint = open_all(&options(&format!("--fd {number}")), INDEX)
        .unwrap()
        .remove(0);
    assert!(endpoint.accept().unwrap().is_none(), "must not block");
    assert!(serves(&mut endpoint, &path));
    assert!(serves(&mut endpoint, &path));
    assert!(close_on_exec(endpoint.listener().unwrap()));
    assert!(!endpoint.is_exhausted());
    drop(endpoint);
    assert_eq!(names(&directory), ["x.sock"]);
}

#[test]
fn an_inherited_connection_is_handed_out_once() {
    let (mut frontend, ours) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let number = pass_on(ours);
    let mut endpoint = open_all(&options(&format!("--fd {number}")), INDEX)
        .unwrap()
        .remove(0);
    assert!(endpoint.listener().is_none() && !endpoint.is_exhausted());
    let mut stream = endpoint.accept().unwrap().unwrap();
    assert!(endpoint.is_exhausted() && endpoint.accept().unwrap().is_none());
    assert!(close_on_exec(&stream));
    let writer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        frontend.write_all(b"x").unwrap();
    });
    stream.read_exact(&mut [0]).unwrap(); // blocks until the byte is there
    writer.join().unwrap();
}

#[test]
fn other_descriptors_are_refused_with_a_reason() {
    let (_directory, path) = place();
    let (reader, _writer) = io::pipe().unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let unconnected = {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
        socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::empty(),
            None,
        )
        .unwrap()
    };
    let cases = [
        (9999, "is not open"),
        (pass_on(reader), "is not a socket"),
        (
            pass_on(fs::File::open("/dev/null").unwrap()),
            "is not a socket",
        ),
        (pass_on(tcp), "is not a unix socket"),
        (
            pass_on(UnixDatagram::bind(&path).unwrap()),
            "is not a stream socket",
        ),
        (pass_on(unconnected), "neither listens nor is connected"),
    ];
    for (number, expected) in cases {
        let error = open_all(&options(&format!("--fd {number}")), INDEX).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        assert!(
            error
                .to_string()
                .starts_with(&format!("descriptor {number} {expected}")),
            "{error}"
        );
    }
}

#[test]
fn a_descriptor_that_the_program_opened_itself_is_never_taken_over() {
    let (_directory, path) = place();
    let mut endpoint = open_one(&path).unwrap();
    let number = endpoint.listener().unwrap().as_raw_fd();
    let error = open_all(&options(&format!("--fd {number}")), INDEX).unwrap_err();
    assert!(error.to_string().contains("was not inherited"), "{error}");
    assert!(serves(&mut endpoint, &path));
}

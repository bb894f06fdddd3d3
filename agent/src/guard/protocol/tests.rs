use super::*;

fn status() -> Status {
    Status {
        version: VERSION,
        phase: Phase::Running,
        adopted: true,
        memory_locked: true,
        guard_pid: 12,
        pid: 13,
        start_ticks: 14,
        since_ns: 15,
        deadline_ns: 16,
        generation: 17,
        exits: 2,
        last_exit: Some(Exit {
            pid: 11,
            status: ExitStatus::Signal(9),
            killed: KillReason::Deadline,
            survivors_killed: 24,
            began_ns: 18,
            gone_ns: 19,
        }),
    }
}

#[test]
fn requests_survive_the_wire() {
    let requests = [
        Request::Hello,
        Request::Status,
        Request::Extend {
            deadline_ns: 7,
            generation: 3,
            shorten: true,
        },
        Request::Disarm { generation: 4 },
        Request::Signal(Order::Kill),
        Request::Quit,
        Request::Start {
            deadline_ns: 9,
            generation: 5,
            argv: Strings::packed(b"/bin/postgres\0-D\0/data\0").unwrap(),
            env: Strings::packed(b"").unwrap(),
            cwd: c"/data",
            log: c"",
        },
        Request::Adopt {
            pid: 77,
            start_ticks: 1234,
        },
    ];
    let mut buffer = [0; 1024];
    for request in requests {
        let length = request.encode(42, &mut buffer).unwrap();
        let (header, payload) = split_frame(&buffer[..length]).unwrap().unwrap();
        assert_eq!(
            (header.version, header.id, header.length + HEADER_LEN),
            (VERSION, 42, length)
        );
        assert_eq!(Request::decode(header.kind.unwrap(), payload), Some(request));
        assert!(split_frame(&buffer[..length - 1]).unwrap().is_none());
    }
}

#[test]
fn reports_survive_the_wire() {
    let report = Report {
        kind: Kind::Reply,
        id: 6,
        outcome: Outcome::StartFailed,
        stage: Stage::Exec,
        errno: 2,
        status: status(),
    };
    let (buffer, length) = report.encode();
    let (header, payload) = split_frame(&buffer[..length]).unwrap().unwrap();
    assert_eq!(Report::decode(header, payload), Some(report));
}

#[test]
fn a_longer_report_of_a_later_version_is_read_by_its_prefix() {
    let report = Report {
        kind: Kind::Exited,
        id: 0,
        outcome: Outcome::Done,
        stage: Stage::None,
        errno: 0,
        status: status(),
    };
    let (mut buffer, length) = report.encode();
    buffer[length..].fill(0xff);
    let longer = &buffer[HEADER_LEN..];
    let header = Header {
        version: VERSION + 1,
        kind: Some(Kind::Exited),
        length: longer.len(),
        id: 0,
    };
    assert_eq!(Report::decode(header, longer), Some(report));
}

#[test]
fn nonsense_is_refused() {
    assert_eq!(split_frame(&[1; HEADER_LEN]), Err(FrameError::Magic));
    let mut buffer = [0; 64];
    Request::Hello.encode(1, &mut buffer).unwrap();
    buffer[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(split_frame(&buffer), Err(FrameError::TooLong(u32::MAX as usize)));
    // A deadline of zero or a payload cut short must not kill anything.
    assert_eq!(Request::decode(Kind::Extend, &[0; 24]), None);
    assert_eq!(Request::decode(Kind::Extend, &[1; 12]), None);
    assert_eq!(Request::decode(Kind::Signal, &[9, 0, 0, 0]), None);
    assert_eq!(Request::decode(Kind::Disarm, &[]), None);
    assert_eq!(Request::decode(Kind::Adopt, &[1; 8]), None);
}

proptest::proptest! {
    #[test]
    fn decoding_never_panics(kind in 0_u16..260, payload in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        if let Some(kind) = Kind::from_wire(kind) {
            let _ = Request::decode(kind, &payload);
            let header = Header { version: 1, kind: Some(kind), length: payload.len(), id: 1 };
            let _ = Report::decode(header, &payload);
        }
        let _ = split_frame(&payload);
    }

    #[test]
    fn start_keeps_every_string(words in proptest::collection::vec("[a-z=]{0,12}", 0..9)) {
        let mut argv = b"/bin/x\0".to_vec();
        let mut env = Vec::new();
        for word in &words {
            argv.extend(word.bytes());
            argv.push(0);
            env.extend(word.bytes());
            env.push(0);
        }
        let request = Request::Start {
            deadline_ns: 0,
            generation: 1,
            argv: Strings::packed(&argv).unwrap(),
            env: Strings::packed(&env).unwrap(),
            cwd: c"/",
            log: c"/log",
        };
        let mut buffer = [0; 1024];
        let length = request.encode(1, &mut buffer).unwrap();
        let (header, payload) = split_frame(&buffer[..length]).unwrap().unwrap();
        let decoded = Request::decode(header.kind.unwrap(), payload);
        proptest::prop_assert_eq!(decoded, Some(request));
    }
}

//! The counters as OpenMetrics text (OpenMetrics 1.0, which Prometheus and others read).

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use vhost_device_core::{GuestFault, Totals};

use super::SocketMetrics;

/// A counter of each queue.
struct QueueCounter {
    name: &'static str,
    help: &'static str,
    unit: Option<&'static str>,
    value: fn(&Totals) -> u64,
}

const QUEUE_COUNTERS: [QueueCounter; 7] = [
    QueueCounter {
        name: "requests",
        help: "Requests taken from the queue.",
        unit: None,
        value: |totals| totals.requests,
    },
    QueueCounter {
        name: "request_bytes",
        help: "Bytes read from and written to requests.",
        unit: Some("bytes"),
        value: |totals| totals.bytes,
    },
    QueueCounter {
        name: "notifications",
        help: "Notifications sent to the driver.",
        unit: None,
        value: |totals| totals.notified,
    },
    QueueCounter {
        name: "notifications_suppressed",
        help: "Batches after which the driver asked not to be notified.",
        unit: None,
        value: |totals| totals.suppressed,
    },
    QueueCounter {
        name: "dropped",
        help: "What the device dropped because a limit was reached.",
        unit: None,
        value: |totals| totals.dropped,
    },
    QueueCounter {
        name: "queue_starts",
        help: "How often the queue was set up.",
        unit: None,
        value: |totals| totals.starts,
    },
    QueueCounter {
        name: "queue_corruptions",
        help: "How often the queue stopped because it was corrupt.",
        unit: None,
        value: |totals| totals.corruptions,
    },
];

type SocketCounter = (&'static str, &'static str, fn(&SocketMetrics) -> u64);

const SOCKET_COUNTERS: [SocketCounter; 4] = [
    ("frontends", "Frontends that were served.", |socket| {
        socket.frontends.load(Ordering::Relaxed)
    }),
    (
        "frontends_turned_away",
        "Frontends that came while another was served.",
        |socket| socket.turned_away.load(Ordering::Relaxed),
    ),
    (
        "messages_refused",
        "Messages of frontends that were refused.",
        |socket| socket.refused_messages.load(Ordering::Relaxed),
    ),
    (
        "resets",
        "Resets of the device by its frontend.",
        |socket| socket.resets.load(Ordering::Relaxed),
    ),
];

/// Everything that the daemon counts, as text.
#[derive(Debug, Default)]
pub(crate) struct Page {
    text: String,
}

impl Page {
    /// The page of a daemon with these sockets.
    pub fn of(name: &str, version: &str, sockets: &[&SocketMetrics]) -> String {
        let mut page = Self::default();
        page.family("", "info", "What is counted here.", None);
        page.line(format_args!(
            "vhost_device_info{{name=\"{}\",version=\"{}\"}} 1",
            Escaped(name),
            Escaped(version)
        ));
        page.connected(sockets);
        for (name, help, value) in SOCKET_COUNTERS {
            page.family(name, "counter", help, None);
            for socket in sockets {
                let label = Escaped(&socket.label);
                page.line(format_args!(
                    "vhost_device_{name}_total{{socket=\"{label}\"}} {}",
                    value(socket)
                ));
            }
        }
        for counter in &QUEUE_COUNTERS {
            page.queues(counter, sockets);
        }
        page.faults(sockets);
        page.text.push_str("# EOF\n");
        page.text
    }

    fn connected(&mut self, sockets: &[&SocketMetrics]) {
        let help = "Whether a frontend is being served.";
        self.family("connected", "gauge", help, None);
        for socket in sockets {
            let label = Escaped(&socket.label);
            let connected = u8::from(socket.connected.load(Ordering::Relaxed));
            self.line(format_args!(
                "vhost_device_connected{{socket=\"{label}\"}} {connected}"
            ));
        }
    }

    fn queues(&mut self, counter: &QueueCounter, sockets: &[&SocketMetrics]) {
        let name = counter.name;
        self.family(name, "counter", counter.help, counter.unit);
        for (label, queue, totals) in each_queue(sockets) {
            self.line(format_args!(
                "vhost_device_{name}_total{{socket=\"{label}\",queue=\"{queue}\"}} {}",
                (counter.value)(&totals)
            ));
        }
    }

    fn faults(&mut self, sockets: &[&SocketMetrics]) {
        let help = "Requests that ended with a mistake of the driver.";
        self.family("faults", "counter", help, None);
        for (label, queue, totals) in each_queue(sockets) {
            for (fault, count) in GuestFault::ALL.iter().zip(totals.faults) {
                let class = fault.name();
                self.line(format_args!(
                    "vhost_device_faults_total{{socket=\"{label}\",queue=\"{queue}\",class=\"{class}\"}} {count}"
                ));
            }
        }
    }

    /// What goes before the values of one name.
    fn family(&mut self, name: &str, kind: &str, help: &str, unit: Option<&str>) {
        let separator = if name.is_empty() { "" } else { "_" };
        let full = format!("vhost_device{separator}{name}");
        self.line(format_args!("# TYPE {full} {kind}"));
        if let Some(unit) = unit {
            self.line(format_args!("# UNIT {full} {unit}"));
        }
        self.line(format_args!("# HELP {full} {help}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // writing to a String cannot fail
        let _ = writeln!(self.text, "{line}");
    }
}

fn each_queue<'a>(
    sockets: &'a [&'a SocketMetrics],
) -> impl Iterator<Item = (Escaped<'a>, usize, Totals)> {
    sockets.iter().flat_map(|socket| {
        let meters = socket.queues.iter().enumerate();
        meters.map(|(number, meter)| (Escaped(&socket.label), number, meter.totals()))
    })
}

/// The text of a label's value, where backslashes, quotes and line feeds are escaped.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(label: &str) -> SocketMetrics {
        SocketMetrics::new(label.to_owned(), 2)
    }

    #[test]
    fn each_family_is_announced_once_and_its_values_follow() {
        let (one, two) = (socket("/run/a"), socket("/run/b"));
        super::super::count(&two.resets);
        let page = Page::of("vhost-device-x", "1.2", &[&one, &two]);
        assert!(page.ends_with("# EOF\n"));
        let mut family = "";
        let mut seen = Vec::new();
        for line in page.lines().filter(|line| *line != "# EOF") {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap();
                assert!(!seen.contains(&family), "{family} is there twice");
                seen.push(family);
            }
            let name = line
                .trim_start_matches("# TYPE ")
                .trim_start_matches("# HELP ")
                .trim_start_matches("# UNIT ");
            assert!(name.starts_with(family), "{line} is not of {family}");
        }
        assert!(page.contains("vhost_device_info{name=\"vhost-device-x\",version=\"1.2\"} 1\n"));
        assert!(page.contains("vhost_device_resets_total{socket=\"/run/b\"} 1\n"));
        assert!(page.contains("vhost_device_requests_total{socket=\"/run/a\",queue=\"1\"} 0\n"));
        assert!(page.contains("# UNIT vhost_device_request_bytes bytes\n"));
        assert!(page.contains(",queue=\"0\",class=\"unmapped\"} 0\n"));
    }

    #[test]
    fn a_path_cannot_break_the_text() {
        let odd = socket("a\"b\\c\nd");
        let page = Page::of("x", "1", &[&odd]);
        assert!(page.contains("{socket=\"a\\\"b\\\\c\\nd\"} 0\n"));
    }
}

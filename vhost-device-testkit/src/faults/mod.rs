//! The catalogue of what every device must survive: misbehaviour of the frontend (C), of the driver (Q) and of the host (F),
//! the life of the process (L), and what it has given up (S). One function plays one row, each against a daemon of its own.
//!
//! After every row the daemon is alive, has leaked nothing and answers a correct request: on the same connection where the
//! misbehaviour concerns one request or ring only, else on the next one.

use crate::conformance::Case;

mod confinement;
mod control_config;
mod control_connection;
mod control_descriptors;
mod control_memory;
mod control_messages;
mod control_rings;
mod effort;
mod fate;
mod host_faults;
mod lifecycle_service;
mod lifecycle_start;
mod lifecycle_stop;
mod lifecycle_watch;
mod ring_chains;
mod ring_events;
mod ring_indices;
mod ring_requests;
mod watch;

/// Calls the macro `$callback` of this crate with all rows: test name, number, title, function.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_case {
    ($callback:ident $($argument:expr)?) => {
        $crate::$callback! {
            $($argument)?;
            c01_connect_and_close "C1" "connect and close at once, 200 times in a row" control_connection::connect_and_close;
            c02_partial_message "C2" "partial header or body, then close" control_connection::partial_message;
            c03_message_in_pieces "C3" "header in single bytes, body in two segments" control_connection::message_in_pieces;
            c04_stall "C4" "stall after half a message" control_connection::stall;
            c05_unknown_request "C5" "unknown request, request of a feature that was not agreed on" control_messages::unknown_request;
            c06_wrong_header "C6" "wrong size, version or flags in the header" control_messages::wrong_header;
            c07_wrong_count_of_descriptors "C7" "missing, surplus and 33 descriptors" control_descriptors::wrong_count;
            c08_wrong_kind_of_descriptor "C8" "kick, call or memory descriptor of the wrong kind" control_descriptors::wrong_kind;
            c09_never_offered "C9" "second owner, feature bits never offered" control_messages::never_offered;
            c10_wrong_ring "C10" "ring that does not exist, in each ring message" control_messages::wrong_ring;
            c11_impossible_ring "C11" "impossible ring sizes and addresses" control_rings::impossible_ring;
            c12_replaced_descriptors "C12" "descriptors replaced while running, full call counter" control_descriptors::replaced;
            c13_ring_base "C13" "GET_VRING_BASE on a stopped ring, twice, under load" control_rings::ring_base;
            c13b_stuck_host "C13b" "GET_VRING_BASE and everything else with the host stuck" control_rings::stuck_host;
            c14_wrong_table "C14" "memory table that no guest can have" control_memory::wrong_table;
            c15_replaced_table "C15" "memory table replaced while rings run" control_memory::replaced_table;
            c16_region_by_region "C16" "memory regions added and removed one by one" control_memory::region_by_region;
            c17_config_anywhere "C17" "configuration read and written at every offset and length" control_config::config_anywhere;
            c18_reset_under_load "C18" "reset, disable and enable under load" control_rings::reset_under_load;
            c19_second_frontend "C19" "second frontend while one is served" control_connection::second_frontend;
            c20_dies_anywhere "C20" "frontend dies at every message of the handshake and in mid-request" control_connection::dies_anywhere;
            c21_truncated_memory "C21" "guest memory file truncated during service" control_memory::truncated_memory;
            q01_lost_index "Q1" "available index or head out of reach" ring_indices::lost_index;
            q02_lost_link "Q2" "links outside of the table and in circles" ring_indices::lost_link;
            q03_broken_table "Q3" "indirect table of wrong length, nested, unmapped" ring_chains::broken_table;
            q04_impossible_buffer "Q4" "buffer unmapped, across a hole, wrapping, far too large" ring_chains::impossible_buffer;
            q05_wrong_direction "Q5" "directions out of order or missing, no room" ring_chains::wrong_direction;
            q06_any_framing "Q6" "any framing of a request gives one answer" ring_chains::any_framing;
            q07_same_head_twice "Q7" "same head made available twice" ring_indices::same_head_twice;
            q08_shifting_ground "Q8" "overlapping buffers, guest rewriting everything meanwhile" ring_chains::shifting_ground;
            q09_wake_ups "Q9" "event index garbage, flags flipping, no interrupt wanted" ring_events::wake_ups;
            q10_kicks_without_work "Q10" "kick storm without work, work before the ring is enabled" ring_events::kicks_without_work;
            q11_odd_headers "Q11" "every header field at its limits, headers without sense" ring_requests::odd_headers;
            q12_wrong_queue "Q12" "valid request on the wrong queue" ring_requests::wrong_queue;
            q13_neglected_buffers "Q13" "buffers never given, or given and never taken back" ring_requests::neglected_buffers;
            q14_ring_sizes "Q14" "ring sizes from 1 to 1024" ring_requests::ring_sizes;
            f1_frontend_killed_or_stopped "F1" "frontend killed, stopped and continued" host_faults::frontend_killed_or_stopped;
            f2_daemon_stopped "F2" "daemon stopped and continued" host_faults::daemon_stopped;
            f5_limits_reached "F5" "descriptor or memory limit reached" host_faults::limits_reached;
            f6_log_nobody_reads "F6" "stderr closed or blocked" host_faults::log_nobody_reads;
            l01_prints_capabilities "L1" "--print-capabilities prints JSON and opens nothing" lifecycle_start::prints_capabilities;
            l02_options_and_mistakes "L2" "help, version, and mistakes in one line" lifecycle_start::options_and_mistakes;
            l03_inherited_descriptor "L3" "--fd with a listening and with a connected socket" lifecycle_start::inherited_descriptor;
            l04_socket_activation "L4" "sockets of a service manager" lifecycle_start::socket_activation;
            l05_several_sockets "L5" "--socket-count 2 serves two frontends at once" lifecycle_start::several_sockets;
            l06_path_in_use "L6" "live socket, dead socket or file at the path" lifecycle_start::path_in_use;
            l07_tells_readiness "L7" "readiness is told after listening" lifecycle_start::tells_readiness;
            l08_socket_mode_and_alias "L8" "--socket-mode, and the path with an index" lifecycle_start::socket_mode_and_alias;
            l09_once "L9" "--once exits after the first frontend" lifecycle_start::once;
            l10_signal_when_idle "L10" "signals end an idle daemon within 200 ms" lifecycle_stop::signal_when_idle;
            l11_signal_when_connected "L11" "signals end a daemon with a frontend within 200 ms" lifecycle_stop::signal_when_connected;
            l12_foreign_socket_stays "L12" "only the own socket is removed at exit" lifecycle_stop::foreign_socket_stays;
            l13_socket_never_absent "L13" "the socket is never absent between frontends" lifecycle_stop::socket_never_absent;
            l14_idle "L14" "no wake-up and few threads when idle" lifecycle_service::idle;
            l15_reconnects "L15" "reconnects leave descriptors, threads and memory flat" lifecycle_service::reconnects;
            l16_dirty_log "L16" "the dirty log has every page the device wrote" lifecycle_service::dirty_log;
            l17_feature_subsets "L17" "every feature on and off" lifecycle_service::feature_subsets;
            l18_one_interrupt_per_batch "L18" "a batch interrupts once, where the driver wants it" lifecycle_service::one_interrupt_per_batch;
            l19_in_order "L19" "IN_ORDER completes in order" lifecycle_service::in_order;
            l20_killed_in_mid_request "L20" "frontend killed in mid-request 100 times" lifecycle_service::killed_in_mid_request;
            l21_busy_poll "L21" "busy polling is free when idle" lifecycle_service::busy_poll;
            l22_counters "L22" "counters on a control socket and on SIGUSR1" lifecycle_watch::counters;
            l23_configuration "L23" "options from a file, checked without serving" lifecycle_watch::configuration;
            l24_signs_of_life "L24" "signs of life, if the service manager asks for them" lifecycle_watch::signs_of_life;
            l25_check "L25" "--check tells what a start would meet" lifecycle_watch::check;
            s01_confined "S1" "no privileges, no calls but the table's, no core" confinement::confined;
            s02_levels_of_confinement "S2" "every level of --sandbox and --seccomp serves" confinement::levels;
        }
    };
}

crate::for_each_case!(__conformance_table);

/// A case by its number.
///
/// # Panics
/// For a number that is not in the catalogue.
pub fn case(id: &str) -> &'static Case {
    CASES
        .iter()
        .find(|case| case.id == id)
        .unwrap_or_else(|| panic!("no case {id} in the catalogue"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_are_unique_and_rows_complete() {
        let ids: HashSet<&str> = CASES.iter().map(|case| case.id).collect();
        assert_eq!(ids.len(), CASES.len());
        let count = |letter| ids.iter().filter(|id| id.starts_with(letter)).count();
        assert_eq!((count('C'), count('Q'), count('F')), (22, 14, 4));
    }

    #[test]
    fn known_limits_are_rows_of_the_catalogue() {
        for (id, reason) in crate::conformance::KNOWN_LIMITS {
            assert!(!case(id).title.is_empty() && !reason.is_empty());
        }
    }
}

//! Real broker processes: crashes, bad input, the command line, another language's client.

mod bad_input;
mod bad_volume;
mod command_line;
mod crash;
mod damage;
mod founding;
mod full_disk;
mod given;
mod lifecycle;
mod power;
mod python;
mod quorum;
mod tags;

use std::process::ExitCode;

use millrace_cluster_tests::{cases, suite};

fn main() -> ExitCode {
    suite::run(&cases![
        crash::acknowledged_messages_survive_kills_at_random_points,
        crash::settlements_and_attempts_survive_a_kill,
        lifecycle::sigterm_drains_and_nothing_is_lost,
        lifecycle::a_second_sigterm_ends_the_process_at_once,
        lifecycle::a_session_goes_on_after_the_broker_was_killed,
        bad_input::an_invalid_topology_names_the_field,
        bad_input::a_bad_pattern_names_the_field,
        bad_input::an_unknown_queue_is_named,
        bad_input::an_oversized_message_is_refused_and_its_neighbours_are_not,
        bad_input::a_message_larger_than_any_limit_does_not_end_the_connection,
        bad_input::a_publish_beyond_the_backlog_limit_is_refused,
        bad_input::garbage_on_the_port_harms_nobody,
        bad_input::a_data_directory_of_another_cluster_is_refused,
        bad_input::a_data_directory_of_a_newer_version_is_refused,
        bad_input::a_locked_data_directory_is_refused,
        bad_input::a_port_in_use_is_named,
        bad_input::control_on_all_addresses_needs_a_token,
        bad_input::the_control_port_wants_the_right_token,
        tags::a_stale_tag_is_refused_as_such,
        tags::a_forged_tag_is_refused_as_such,
        tags::a_bad_tag_does_not_end_a_stream,
        full_disk::a_full_disk_refuses_publishes_and_loses_nothing,
        full_disk::a_broker_killed_at_a_full_disk_starts_again_and_has_everything,
        full_disk::a_disk_that_others_fill_to_the_last_block_stops_publishing_only,
        bad_volume::a_failed_sync_ends_the_broker_and_is_not_tried_again,
        bad_volume::a_failed_write_ends_the_broker_and_is_not_tried_again,
        bad_volume::a_checkpoint_whose_sync_fails_ends_the_broker_and_loses_nothing,
        bad_volume::an_unreadable_segment_is_an_error_to_its_reader_and_to_nobody_else,
        damage::damage_in_the_journal_is_named_and_the_other_shards_serve,
        damage::damage_in_a_segment_is_named_to_its_reader_and_ends_nothing,
        power::nothing_acknowledged_is_lost_when_the_power_goes,
        command_line::lines_go_through_a_topic_into_a_queue,
        command_line::read_starts_where_it_is_told,
        command_line::rejected_and_retried_messages_become_dead_letters,
        command_line::list_describe_and_peek_show_what_is_there,
        command_line::exit_codes_tell_failures_apart,
        command_line::a_closed_pipe_ends_quietly_and_loses_nothing,
        command_line::a_consumer_that_is_asked_to_end_settles_what_it_took,
        command_line::publish_outlives_a_restart_of_the_broker,
        founding::three_nodes_found_one_cluster_in_any_order,
        founding::a_node_whose_disk_is_lost_founds_nothing_again,
        founding::a_node_that_was_struck_off_comes_back_with_its_old_disk,
        founding::a_record_that_was_sent_to_some_reaches_those_who_come_later,
        quorum::without_a_majority_calls_are_refused_as_retryable_and_none_hangs,
        quorum::a_leader_that_is_cut_off_refuses_and_the_others_go_on,
        quorum::a_followers_full_disk_stops_publishing_only_and_no_node,
        python::a_client_generated_from_the_protocol_files_works,
    ])
}

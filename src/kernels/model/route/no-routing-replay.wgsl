// A monolithic router without routing_replay_out: nothing learns the ids.

fn putReplay(k: u32, expert: u32) {
}

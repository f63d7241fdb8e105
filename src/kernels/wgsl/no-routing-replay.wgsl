// A monolithic router without routing_replay_out: nobody learns the ids.

fn putId(row: u32, layer: u32, k: u32, expert: u32, before: u32) {
}

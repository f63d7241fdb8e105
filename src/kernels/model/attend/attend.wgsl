// The digest that stands in for attention. A workgroup a request: its threads sum the old positions in strides and the
// new tokens in runs, meet once, and then each walks its run again with the sum of all that lies before it.
//
//     position   0 ─────────────── tokenStart ──────── tokenStart + tokenCount
//     thread     0 1 2 … 0 1 2 … │ 0 0 0 1 1 1 2 2 2 …
//                sum of terms    │ prefix sums of terms → hidden

@group(0) @binding(0) var<storage, read> stepInput: array<u32>;
@group(0) @binding(1) var<storage, read> kvKeys: array<vec2u>;
@group(0) @binding(2) var<storage, read> blockTable: array<u32>;
@group(0) @binding(3) var<storage, read_write> hidden: array<vec4u>;

// Per thread: sum of its old positions (xy), sum of its run of new tokens (zw).
var<workgroup> partial: array<vec4u, ATTEND_THREADS>;

// A position with its place in the block table, carried along because a division costs more than the rest of a term.
struct Place {
  position: u32,
  block: u32,
  offset: u32,
}

fn placeOf(table: u32, position: u32) -> Place {
  return Place(position, table + position / BLOCK_SIZE, position % BLOCK_SIZE);
}

// Further by `blocks` whole blocks and `rest < BLOCK_SIZE` tokens.
fn advance(place: Place, blocks: u32, rest: u32) -> Place {
  let offset = place.offset + rest;
  let carry = select(0u, 1u, offset >= BLOCK_SIZE);
  return Place(
    place.position + blocks * BLOCK_SIZE + rest,
    place.block + blocks + carry,
    offset - carry * BLOCK_SIZE,
  );
}

// The thread's next old position.
fn nextOf(place: Place) -> Place {
  return advance(place, ATTEND_THREADS / BLOCK_SIZE, ATTEND_THREADS % BLOCK_SIZE);
}

fn termAt(place: Place) -> vec2u {
  return termOf(kvKeys[blockTable[place.block] * BLOCK_SIZE + place.offset], place.position);
}

@compute @workgroup_size(ATTEND_THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let request = stepInput[H_REQUESTS] + REQUEST_WORDS * group.x;
  let table = stepInput[request + R_BATCH_SLOT] * MAX_BLOCKS_PER_SEQ;
  let tokenStart = stepInput[request + R_TOKEN_START];
  let tokenCount = stepInput[request + R_TOKEN_COUNT];
  let rowStart = stepInput[request + R_ROW_START];

  var old = vec2u(0u);
  var place = placeOf(table, thread);
  if (READ_AHEAD == 4u) {
    // A key is read behind its place in the block table: four chains of two loads hide what one waits for.
    while (place.position + 3u * ATTEND_THREADS < tokenStart) {
      let second = nextOf(place);
      let third = nextOf(second);
      let fourth = nextOf(third);
      old += termAt(place) + termAt(second) + termAt(third) + termAt(fourth);
      place = nextOf(fourth);
    }
  }
  while (place.position < tokenStart) {
    old += termAt(place);
    place = nextOf(place);
  }
  let run = (tokenCount + ATTEND_THREADS - 1u) / ATTEND_THREADS;
  let runStart = min(thread * run, tokenCount);
  let runEnd = min(runStart + run, tokenCount);
  let firstPlace = placeOf(table, tokenStart + runStart);
  place = firstPlace;
  var fresh = vec2u(0u);
  for (var i = runStart; i < runEnd; i++) {
    fresh += termAt(place);
    place = advance(place, 0u, 1u);
  }
  partial[thread] = vec4u(old, fresh);
  workgroupBarrier();

  if (runStart == runEnd) {
    return;
  }
  var sum = vec2u(0u);
  for (var other = 0u; other < ATTEND_THREADS; other++) {
    let part = partial[other];
    sum += part.xy + select(vec2u(0u), part.zw, other < thread);
  }
  place = firstPlace;
  for (var i = runStart; i < runEnd; i++) {
    sum += termAt(place);
    hidden[rowStart + i] = vec4u(hiddenOf(sum), sum);
    place = advance(place, 0u, 1u);
  }
}

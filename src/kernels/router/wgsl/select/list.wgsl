// The LIST best keys that one invocation has seen, in registers and in descending order. Straight-line code without
// branches: an array with a computed index would live in memory, and lanes that part ways before a subgroup operation
// need not meet again. LIST is 4, 8, 16 or 32; what is beyond costs nothing.

struct Best {
  a: vec4i,
  b: vec4i,
  c: vec4i,
  d: vec4i,
  e: vec4i,
  f: vec4i,
  g: vec4i,
  h: vec4i,
}

fn emptyBest() -> Best {
  let none = vec4i(EMPTY);
  return Best(none, none, none, none, none, none, none, none);
}

// A row of the list with `key` put in at its place; what falls out of it is min(key, row.w).
fn insert(row: vec4i, key: i32) -> vec4i {
  return max(row, min(vec4i(key), vec4i(HIGHEST, row.xyz)));
}

fn put(best: Best, key: i32) -> Best {
  var next = best;
  next.a = insert(best.a, key);
  var down = min(best.a.w, key);
  if (LIST > 4u) {
    next.b = insert(best.b, down);
    down = min(best.b.w, down);
  }
  if (LIST > 8u) {
    next.c = insert(best.c, down);
    down = min(best.c.w, down);
    next.d = insert(best.d, down);
    down = min(best.d.w, down);
  }
  if (LIST > 16u) {
    next.e = insert(best.e, down);
    down = min(best.e.w, down);
    next.f = insert(best.f, down);
    down = min(best.f.w, down);
    next.g = insert(best.g, down);
    down = min(best.g.w, down);
    next.h = insert(best.h, down);
  }
  return next;
}

fn putQuad(best: Best, keys: vec4i) -> Best {
  return put(put(put(put(best, keys.x), keys.y), keys.z), keys.w);
}

// The list without its first key, if it is `isTaken`.
fn pop(best: Best, isTaken: bool) -> Best {
  var next = best;
  if (LIST == 4u) {
    next.a = select(best.a, vec4i(best.a.yzw, EMPTY), isTaken);
  } else {
    next.a = select(best.a, vec4i(best.a.yzw, best.b.x), isTaken);
  }
  if (LIST == 8u) {
    next.b = select(best.b, vec4i(best.b.yzw, EMPTY), isTaken);
  }
  if (LIST > 8u) {
    next.b = select(best.b, vec4i(best.b.yzw, best.c.x), isTaken);
    next.c = select(best.c, vec4i(best.c.yzw, best.d.x), isTaken);
    next.d = select(best.d, vec4i(best.d.yzw, select(EMPTY, best.e.x, LIST > 16u)), isTaken);
  }
  if (LIST > 16u) {
    next.e = select(best.e, vec4i(best.e.yzw, best.f.x), isTaken);
    next.f = select(best.f, vec4i(best.f.yzw, best.g.x), isTaken);
    next.g = select(best.g, vec4i(best.g.yzw, best.h.x), isTaken);
    next.h = select(best.h, vec4i(best.h.yzw, EMPTY), isTaken);
  }
  return next;
}

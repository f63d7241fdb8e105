// The LIST best keys that one invocation has seen, in registers and in descending order, and the best that it had to let go. Straight-line
// code: an array with a computed index would live in memory. LIST is 4, 8, 16 or 32; unused rows cost nothing.

struct Best {
  a: vec4i,
  b: vec4i,
  c: vec4i,
  d: vec4i,
  e: vec4i,
  f: vec4i,
  g: vec4i,
  h: vec4i,
  rejected: i32,
}

fn emptyBest() -> Best {
  let none = vec4i(EMPTY);
  return Best(none, none, none, none, none, none, none, none, EMPTY);
}

// A row of the list with `key` put in at its place; what falls out of it is min(key, row.w).
fn insert(row: vec4i, key: i32) -> vec4i {
  return max(row, min(vec4i(key), vec4i(HIGHEST, row.xyz)));
}

fn put(best: Best, key: i32) -> Best {
  var next = best;
  var down = min(best.a.w, key);
  next.a = insert(best.a, key);
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
    down = min(best.h.w, down);
  }
  next.rejected = max(best.rejected, down);
  return next;
}

fn putQuad(best: Best, keys: vec4i) -> Best {
  return put(put(put(put(best, keys.x), keys.y), keys.z), keys.w);
}

// The list without its first key.
fn pop(best: Best) -> Best {
  var next = best;
  next.a = vec4i(best.a.yzw, EMPTY);
  if (LIST > 4u) {
    next.a.w = best.b.x;
    next.b = vec4i(best.b.yzw, EMPTY);
  }
  if (LIST > 8u) {
    next.b.w = best.c.x;
    next.c = vec4i(best.c.yzw, best.d.x);
    next.d = vec4i(best.d.yzw, EMPTY);
  }
  if (LIST > 16u) {
    next.d.w = best.e.x;
    next.e = vec4i(best.e.yzw, best.f.x);
    next.f = vec4i(best.f.yzw, best.g.x);
    next.g = vec4i(best.g.yzw, best.h.x);
    next.h = vec4i(best.h.yzw, EMPTY);
  }
  return next;
}

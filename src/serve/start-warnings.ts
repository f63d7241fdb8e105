/** What the operator of a server should know before its first client finds out. */

import type { EngineHostOptions } from './engine-host.ts';

export function startWarnings({ kv, prefixRows }: EngineHostOptions): readonly string[] {
  if (kv === null || kv.role === 'prefill') return [];
  if (kv.rows === 'splice') {
    return [
      '--pd-rows splice: rows of positions whose KV is loaded from another server are declared missing, unless a ' +
        'proxy splices them in; send requests through "routed-experts proxy --pd-rows splice", or take --pd-rows ' +
        'with-kv',
    ];
  }
  if (prefixRows === 'share') {
    return [
      '--prefix-rows share: rows of positions whose KV is loaded from a server that has no rows of them are declared ' +
        'missing; --prefix-rows complete computes such positions again',
    ];
  }
  if (prefixRows === 'computed-only') {
    return [
      '--prefix-rows computed-only: rows of positions whose KV is loaded from another server are declared missing; ' +
        '--prefix-rows complete returns them',
    ];
  }
  return [];
}

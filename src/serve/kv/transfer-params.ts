/**
 * `kv_transfer_params`: how vLLM's proxies say which engine has the KV that a request begins with (NIXL's pull flow), and
 * what that engine has told the proxy before.
 */

import type { RowShape } from '../../capture/row-shape.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import type { KvOffer } from '../../handover/kv-keeper.ts';
import type { RemoteKv } from '../../handover/kv-message.ts';
import type { BodyFields } from '../body/body-fields.ts';
import { badField } from '../body/body-fields.ts';
import { HttpError } from '../http-error.ts';
import { readCarriedRows } from './carried-rows.ts';

export { pdRowsWays, type PdRows } from '../../handover/handed-rows.ts';

const MAX_ID_LENGTH = 512;
const MAX_TOKENS = 2 ** 31 - 1;
/**
 * Fields of vLLM's that say nothing here: blocks are asked for by position, and the other engine keeps the lease.
 */
const unused = ['remote_block_ids', 'tp_size', 'remote_blocks_expiry_time', 'transfer_mode'];

/** What a server does for others: it keeps KV for them, or fetches KV from them. */
export const kvRoles = ['prefill', 'decode', 'both'] as const;
export type KvRole = (typeof kvRoles)[number];

/** What parameters are read against. */
export type TransferRules = Readonly<{
  role: KvRole;
  /** Of the model served here. */
  rowShape: RowShape;
  /** Whether KV may be fetched from a host. */
  isPeer: (host: string) => boolean;
}>;

/** Keep this request's KV for an engine that will ask for it. */
export type KeepKv = Readonly<{
  kind: 'keep';
  /**
   * Whether the rows are wanted in the choice too. A proxy that has no use for them there says `"return_rows": false`.
   */
  returnsRows: boolean;
}>;

/** Begin with the KV of a request that another engine served. */
export type HostedKv = RemoteKv & Readonly<{ kind: 'remote'; host: string; port: number }>;

export type TransferParams = KeepKv | HostedKv;

/** What goes to the proxy, and with its next request to the engine that decodes. */
export type TransferAnswer = Readonly<{
  /** vLLM's names and units. */
  params: Readonly<Record<string, unknown>>;
  /** To be written as `remote_routed_experts`; `null`: left out. */
  carried: RoutedRows | null;
}>;

export function transferAnswer(offer: KvOffer, host: string, port: number): TransferAnswer {
  const params = {
    do_remote_prefill: true,
    do_remote_decode: false,
    remote_engine_id: offer.engineId,
    remote_request_id: offer.requestId,
    remote_block_ids: [offer.blockIds],
    remote_host: host,
    remote_port: port,
    tp_size: 1,
    remote_num_tokens: offer.numTokens,
    // Seconds since 1970.
    remote_blocks_expiry_time: offer.expiresAt / 1e3,
    transfer_mode: 'pull',
    remote_rows: offer.hasRows,
  };
  return { params, carried: offer.carried };
}

/** Throws BAD_FIELD and UNSUPPORTED_FIELD. `null`: the parameters ask for nothing. */
export function readTransferParams(body: BodyFields, rules: TransferRules): TransferParams | null {
  const fields = body.object('kv_transfer_params');
  for (const name of unused) fields.raw(name);
  const keeps = fields.flag('do_remote_decode');
  const loads = fields.flag('do_remote_prefill');
  if (keeps && loads) throw badField(fields.nameOf('do_remote_prefill'), true, 'false where do_remote_decode is true');
  if (keeps) {
    checkRole(fields, 'do_remote_decode', rules.role !== 'decode', rules.role);
    const returnsRows = fields.raw('return_rows') === undefined || fields.flag('return_rows');
    return { kind: 'keep', returnsRows };
  }
  if (!loads) return null;
  checkRole(fields, 'do_remote_prefill', rules.role !== 'prefill', rules.role);
  return readRemote(fields, rules);
}

/** vLLM's connector would not look at its role; here a proxy that has its servers the wrong way round is told so. */
function checkRole(fields: BodyFields, name: string, fits: boolean, role: KvRole): void {
  if (fits) return;
  const full = fields.nameOf(name);
  throw HttpError.of('UNSUPPORTED_FIELD', full, full, 'true', `this server was started with --role ${role}`);
}

function readRemote(fields: BodyFields, { isPeer, rowShape }: TransferRules): HostedKv {
  const required = <T>(name: string, value: T | null, wanted: string): T => {
    if (value === null) throw badField(fields.nameOf(name), undefined, wanted);
    return value;
  };
  const text = (name: string, wanted: string): string => required(name, fields.text(name, MAX_ID_LENGTH), wanted);
  const whole = (name: string, min: number, max: number, wanted: string): number =>
    required(name, fields.whole(name, min, max), wanted);
  const host = text('remote_host', 'the host of the engine that has the KV');
  if (!isPeer(host)) {
    throw badField(fields.nameOf('remote_host'), host, 'a host that this server was told of (--kv-peer)');
  }
  const engineId = text('remote_engine_id', 'the id of that engine');
  const requestId = text('remote_request_id', 'the id of the request there');
  const port = whole('remote_port', 1, 65_535, 'the port of that engine');
  const numTokens = whole('remote_num_tokens', 0, MAX_TOKENS, 'how many tokens it has');
  const hasRows = fields.flag('remote_rows');
  const isCarried = fields.raw('remote_routed_experts') !== undefined;
  const carried = isCarried ? readCarriedRows(fields.object('remote_routed_experts'), rowShape, numTokens) : null;
  return { kind: 'remote', host, engineId, requestId, port, numTokens, hasRows, carried };
}

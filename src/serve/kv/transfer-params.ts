/** `kv_transfer_params`: how vLLM's proxies say whose KV a request begins with (NIXL's pull flow), and what the engine that has it answers. */

import type { BodyFields } from '../body-fields.ts';
import { badField } from '../body-fields.ts';

const MAX_ID_LENGTH = 512;
/** Of vLLM's fields those that say nothing here: blocks are asked for by position, and the lease is the other engine's affair. */
const unused = ['remote_block_ids', 'tp_size', 'remote_blocks_expiry_time', 'transfer_mode'];

/** Keep this request's KV for somebody who will ask for it. */
export type KeepKv = Readonly<{ kind: 'keep' }>;

/** Begin with the KV of a request that another engine served. */
export type RemoteKv = Readonly<{
  kind: 'remote';
  engineId: string;
  requestId: string;
  host: string;
  port: number;
  /** Tokens from the front of the prompt whose KV is there. */
  numTokens: number;
  /** Their rows are there too. Not of vLLM: an engine that has no rows leaves it out. */
  hasRows: boolean;
}>;

export type TransferParams = KeepKv | RemoteKv;

/** What goes to the proxy, and with its next request to the engine that decodes. */
export type TransferAnswer = Readonly<{
  do_remote_prefill: true;
  do_remote_decode: false;
  remote_engine_id: string;
  remote_request_id: string;
  remote_block_ids: readonly (readonly number[])[];
  remote_host: string;
  remote_port: number;
  tp_size: 1;
  remote_num_tokens: number;
  /** Seconds since 1970. */
  remote_blocks_expiry_time: number;
  transfer_mode: 'pull';
  remote_rows: boolean;
}>;

/** Throws BAD_FIELD. `null`: the parameters ask for nothing. `isPeer` says whether KV may be fetched from a host. */
export function readTransferParams(body: BodyFields, isPeer: (host: string) => boolean): TransferParams | null {
  const fields = body.object('kv_transfer_params');
  for (const name of unused) fields.raw(name);
  const keeps = fields.flag('do_remote_decode');
  const loads = fields.flag('do_remote_prefill');
  if (keeps && loads) throw badField(fields.nameOf('do_remote_prefill'), true, 'false where do_remote_decode is true');
  if (keeps) return { kind: 'keep' };
  if (!loads) return null;
  const required = <T>(name: string, value: T | null, wanted: string): T => {
    if (value === null) throw badField(fields.nameOf(name), undefined, wanted);
    return value;
  };
  const host = required(
    'remote_host',
    fields.text('remote_host', MAX_ID_LENGTH),
    'the host of the engine that has the KV',
  );
  if (!isPeer(host))
    throw badField(fields.nameOf('remote_host'), host, 'a host that this server was told of (--kv-peer)');
  return {
    kind: 'remote',
    host,
    engineId: required('remote_engine_id', fields.text('remote_engine_id', MAX_ID_LENGTH), 'the id of that engine'),
    requestId: required(
      'remote_request_id',
      fields.text('remote_request_id', MAX_ID_LENGTH),
      'the id of the request there',
    ),
    port: required('remote_port', fields.whole('remote_port', 1, 65_535), 'the port of that engine'),
    numTokens: required(
      'remote_num_tokens',
      fields.whole('remote_num_tokens', 0, 2 ** 31 - 1),
      'how many tokens it has',
    ),
    hasRows: fields.flag('remote_rows'),
  };
}

/** The requests whose KV is on its way in, has come in, or is kept for somebody else. */

import { RoutedExpertsError } from '../contract/errors.ts';
import type { KvConnector } from '../contract/kv-connector.ts';
import { RequestStatus, type Request } from './request.ts';

/**
 *     waiting ──▶ loading ──▶ loaded ──▶ running ──▶ kept
 *                    │ aborted: stays here, finished, until its load has ended
 *
 * Invariant: a request is in at most one of the three, and holds its blocks as long as it is in one. Loaded ones stand in a waiting queue too.
 */
export class KvHandovers {
  readonly connector: KvConnector;
  /** By request index, which is also the load's id. */
  readonly loading: Map<number, Request> = new Map();
  readonly loaded: Set<Request> = new Set();
  readonly kept: Map<number, Request> = new Map();

  constructor(connector: KvConnector) {
    this.connector = connector;
  }

  /** Loads whose request is alive. */
  get numWaiting(): number {
    let count = 0;
    for (const request of this.loading.values()) if (request.status !== RequestStatus.finished) count += 1;
    return count;
  }

  get numKeptBlocks(): number {
    let count = 0;
    for (const request of this.kept.values()) count += request.blockIds.length;
    return count;
  }

  /** Tokens from the front of the request that can be loaded; asked once. `accepts` says whether the request may use KV with or without rows. */
  numExternalTokens(request: Request, accepts: (hasRows: boolean) => boolean): number {
    if (request.externalTokens < 0) {
      const external = this.connector.externalKv(request);
      const usable = external !== null && accepts(external.hasRows) ? external.numTokens : 0;
      request.externalTokens = Math.min(usable, request.numTokens);
    }
    return request.externalTokens;
  }

  /** The request has its blocks, and those of the positions `[from, to)` are to be filled. */
  beginLoad(request: Request, from: number, to: number, blockSize: number): void {
    request.status = RequestStatus.waitingForRemoteKvs;
    request.externalTokens = 0;
    request.loadFrom = from;
    request.loadTo = to;
    this.loading.set(request.index, request);
    this.connector.startLoad({
      loadId: request.index,
      requestId: request.requestId,
      from,
      to,
      blockIds: request.blockIds.slice(from / blockSize, Math.ceil(to / blockSize)),
    });
  }

  /** Throws INVARIANT for a load that is not in flight. */
  endLoad(loadId: number): Request {
    const request = this.loading.get(loadId);
    if (request === undefined) throw RoutedExpertsError.of('INVARIANT', `load ${loadId} ended, but is not in flight`);
    this.loading.delete(loadId);
    return request;
  }

  /** A loaded request that can give its blocks to `request`: the one that came last. */
  victimFor(request: Request): Request | null {
    let victim: Request | null = null;
    for (const loaded of this.loaded) if (loaded !== request) victim = loaded;
    return victim;
  }
}

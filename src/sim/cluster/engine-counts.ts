/** What an engine of a cluster did, and what it moved. */

export type EngineCounts = {
  /** Tokens that requests were given, and steps that ran, behind the warm-up. */
  tokens: number;
  steps: number;
  dummies: number;
  finished: number;
  aborted: number;
  failed: number;
  rowsDelivered: number;
  rowsMissing: number;
  /** Bytes of rows: in messages from the ranks, and to clients. */
  hostToEngine: number;
  toClients: number;
  /** Bytes of the experts' all-to-all with other nodes. */
  exchange: number;
};

export function newCounts(): EngineCounts {
  return {
    tokens: 0,
    steps: 0,
    dummies: 0,
    finished: 0,
    aborted: 0,
    failed: 0,
    rowsDelivered: 0,
    rowsMissing: 0,
    hostToEngine: 0,
    toClients: 0,
    exchange: 0,
  };
}

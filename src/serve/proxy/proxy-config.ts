/** What a proxy is told when it starts. Times in ms. */

import type { PdRows } from '../kv/transfer-params.ts';
import type { ServeConfig } from '../serve-config.ts';

export type ProxyConfig = Pick<ServeConfig, 'host' | 'port' | 'limits' | 'logLevel' | 'log'> &
  Readonly<{
    /** Origins, e.g. `http://127.0.0.1:8100`; at least one of each. */
    prefill: readonly string[];
    decode: readonly string[];
    /**
     * `splice`: the proxy puts the rows of the first answer where the second declares them missing. Otherwise answers
     * pass through as they are.
     */
    rows: PdRows;
    /** Silence after which a server is given up. */
    prefillMs: number;
    decodeMs: number;
    /** Between two looks at each server's `/health`. */
    healthMs: number;
  }>;

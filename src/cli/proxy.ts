/** `routed-experts proxy`: one address before servers that prefill and servers that decode. */

import { Command, InvalidArgumentError, Option } from 'commander';
import type { PdRows } from '../serve/kv/transfer-params.ts';
import { pdRowsWays } from '../serve/kv/transfer-params.ts';
import { Proxy } from '../serve/proxy/proxy.ts';
import type { ProxyConfig } from '../serve/proxy/proxy-config.ts';
import type { ServeConfig } from '../serve/serve-config.ts';
import { defaultLimits } from '../serve/serve-config.ts';
import { finite, whole } from './options.ts';
import { nextSignal } from './signals.ts';

type Flags = {
  prefill: string[];
  decode: string[];
  pdRows: PdRows;
  host: string;
  port: number;
  prefillTimeout: number;
  decodeTimeout: number;
  healthInterval: number;
  maxConcurrent: number;
  maxBodyBytes: number;
  requestTimeout: number;
  stallTimeout: number;
  drainTimeout: number;
  logLevel: ServeConfig['logLevel'];
};

export function proxyCommand(): Command {
  return new Command('proxy')
    .description('Send each request to a server that prefills, then to one that decodes (vLLM’s kv_transfer_params)')
    .requiredOption('--prefill <url...>', 'servers that prefill (serve --role prefill)', origin)
    .requiredOption('--decode <url...>', 'servers that decode (serve --role decode)', origin)
    .addOption(
      new Option(
        '--pd-rows <way>',
        'as the servers were told; splice: put the rows of the first answer where the second declares them missing',
      )
        .choices(pdRowsWays)
        .default('with-kv'),
    )
    .option('--host <address>', 'address to listen on; anything but loopback lets others in', '127.0.0.1')
    .option('--port <n>', 'port to listen on; 0 = any free one', whole(0, 65_535), 8000)
    .option('--prefill-timeout <s>', 'a prefill server that is silent for this long is given up', seconds, 60)
    .option('--decode-timeout <s>', 'a decode server that is silent for this long is given up', seconds, 600)
    .option('--health-interval <s>', 'between two looks at each server’s /health', seconds, 1)
    .option('--max-concurrent <n>', 'requests served at once; more get 429', whole(1, 65_535), 1024)
    .option('--max-body-bytes <n>', 'longest request body', whole(1, 2 ** 30), defaultLimits.bodyBytes)
    .option('--request-timeout <s>', 'until a request must have arrived', seconds, defaultLimits.requestMs / 1e3)
    .option(
      '--stall-timeout <s>',
      'a client that reads nothing for this long is cut off',
      seconds,
      defaultLimits.stallMs / 1e3,
    )
    .option('--drain-timeout <s>', 'after SIGTERM, until what still runs is cut off', finite(0, 86_400), 30)
    .addOption(
      new Option('--log-level <level>', 'of the log on stderr')
        .choices(['silent', 'error', 'warn', 'info', 'debug'])
        .default('info'),
    )
    .action((flags: Flags) => run(flags));
}

const seconds = finite(0.1, 86_400);

/** Adds the origin of a URL to those before it. */
function origin(text: string, before: string[] = []): string[] {
  const url = URL.canParse(text) ? new URL(text) : null;
  const isOrigin =
    url !== null && ['http:', 'https:'].includes(url.protocol) && url.pathname === '/' && url.search === '';
  if (!isOrigin) throw new InvalidArgumentError('Give the address of a server, like http://127.0.0.1:8100.');
  if (before.includes(url.origin)) throw new InvalidArgumentError('It is given twice.');
  return [...before, url.origin];
}

async function run(flags: Flags): Promise<void> {
  const proxy = await Proxy.start(toConfig(flags));
  const servers = `${flags.prefill.length} to prefill, ${flags.decode.length} to decode`;
  console.log(`routed-experts proxies on ${proxy.url} (${servers}, rows ${flags.pdRows})`);
  const signal = await nextSignal();
  console.error(`${signal}: taking no new requests, ${proxy.numActive} in progress`);
  // A second signal means now.
  const impatient = nextSignal().then(() => process.exit(1));
  await Promise.race([proxy.close(flags.drainTimeout * 1e3), impatient]);
  process.exit(0);
}

function toConfig(flags: Flags): ProxyConfig {
  return {
    prefill: flags.prefill,
    decode: flags.decode,
    rows: flags.pdRows,
    host: flags.host,
    port: flags.port,
    prefillMs: flags.prefillTimeout * 1e3,
    decodeMs: flags.decodeTimeout * 1e3,
    healthMs: flags.healthInterval * 1e3,
    limits: {
      ...defaultLimits,
      bodyBytes: flags.maxBodyBytes,
      requestMs: flags.requestTimeout * 1e3,
      headersMs: Math.min(defaultLimits.headersMs, flags.requestTimeout * 1e3),
      stallMs: flags.stallTimeout * 1e3,
      maxConcurrent: flags.maxConcurrent,
    },
    logLevel: flags.logLevel,
    log: process.stderr,
  };
}

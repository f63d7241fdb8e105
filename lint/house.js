// The rules of this house: which room may import which, what needs no Node, and 120 columns.
import { dirname, join, relative, sep } from 'node:path';

/**
 * What each room may import, itself aside. `room/part` admits that part alone. A longer name of a file's place goes
 * before a shorter one.
 */
const ROOMS = {
  contract: [],
  engine: ['contract'],
  'kernels/device': ['contract'],
  'kernels/router': ['contract'],
  'kernels/model': ['contract', 'kernels/router'],
  kernels: ['contract'],
  capture: ['contract', 'engine', 'kernels'],
  workload: ['contract'],
  rows: ['contract', 'capture'],
  analysis: ['contract', 'rows'],
  handover: ['contract', 'engine', 'capture'],
  conformance: ['contract', 'engine', 'capture', 'rows'],
  'worker/pipeline': ['contract', 'capture', 'kernels'],
  worker: ['contract', 'engine', 'kernels', 'capture'],
  sim: ['contract', 'engine', 'kernels', 'capture', 'worker/pipeline', 'handover', 'workload', 'rows'],
  host: ['contract', 'engine', 'kernels', 'capture', 'worker', 'handover'],
  serve: ['contract', 'engine', 'kernels', 'capture', 'worker', 'handover', 'host', 'rows', 'workload'],
  'cli/campaign/core': ['contract'],
  // What runs a campaign knows no kind of campaign.
  'cli/campaign': ['contract', 'cli/environment.ts', 'cli/options.ts', 'cli/signals.ts'],
  cli: null,
  entries: null,
};

/** Files that may import less than their room, by the end of their path. */
const HALVES = { 'engine-half.ts': 'kernels', 'worker-half.ts': 'engine' };

/** Rooms that also run in a browser: nothing of Node, no device, no thread. */
const WITHOUT_NODE = [
  'contract',
  'engine',
  'capture',
  'rows',
  'analysis',
  'handover',
  'conformance',
  'worker/pipeline',
  'sim',
  'kernels/model',
  'kernels/router',
  'entries',
  'cli/campaign/core',
];
const WITH_NODE = ['capture/shm-flock', 'rows/files'];

/** Packages of the platform, and the rooms that import them. */
const PLATFORM = {
  webgpu: ['kernels/device'],
  piscina: ['worker', 'cli'],
  bullmq: ['cli/campaign/queue'],
  ioredis: ['cli/campaign/queue'],
  koffi: ['capture/shm-flock', 'kernels/device', 'cli'],
};

const isIn = (place, room) => place === room || place.startsWith(`${room}/`);

function roomOf(place) {
  const names = Object.keys(ROOMS).filter((room) => isIn(place, room));
  return names.toSorted((a, b) => b.length - a.length)[0] ?? null;
}

/** Why `place` (a file of src) may not import `specifier`, or null. */
export function refusedImport(place, specifier) {
  const isOf = (rooms) => rooms.some((room) => isIn(place, room));
  if (!specifier.startsWith('.')) {
    const owners = PLATFORM[specifier];
    if (owners !== undefined && !isOf(owners)) return `${specifier} is imported by ${owners.join(', ')} only`;
    if (!specifier.startsWith('node:') || !isOf(WITHOUT_NODE) || isOf(WITH_NODE)) return null;
    return 'this room also runs in a browser: nothing of Node';
  }
  const room = roomOf(place);
  if (room === null || ROOMS[room] === null) return null;
  const target = join(dirname(place), specifier).split(sep).join('/');
  if (target.startsWith('../')) return 'src imports nothing from outside src';
  const less = Object.entries(HALVES).find(([end]) => place.endsWith(`/${end}`))?.[1];
  const allowed = [room, ...ROOMS[room]].filter((name) => name !== less);
  if (allowed.some((name) => isIn(target, name))) return null;
  return `${room} may import ${allowed.join(', ')}; ${target} stands elsewhere (docs/architecture.md)`;
}

const arrows = {
  create(context) {
    const place = relative(join(context.cwd, 'src'), context.filename).split(sep).join('/');
    if (place.startsWith('..')) return {};
    const check = (node) => {
      const specifier = node.source?.value;
      if (typeof specifier !== 'string') return;
      const message = refusedImport(place, specifier);
      if (message !== null) context.report({ node: node.source, message });
    };
    return {
      ImportDeclaration: check,
      ExportNamedDeclaration: check,
      ExportAllDeclaration: check,
      ImportExpression: check,
      TSImportType: check,
    };
  },
};

const MAX_COLUMNS = 120;

const columns = {
  create: (context) => ({
    Program() {
      for (const [i, text] of context.sourceCode.lines.entries()) {
        if (text.length <= MAX_COLUMNS) continue;
        const loc = { start: { line: i + 1, column: MAX_COLUMNS }, end: { line: i + 1, column: text.length } };
        context.report({ message: `${text.length} columns, at most ${MAX_COLUMNS}`, loc });
      }
    },
  }),
};

export default { meta: { name: 'house' }, rules: { arrows, columns } };

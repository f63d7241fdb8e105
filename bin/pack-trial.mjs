// Packs the package, installs it in an empty folder outside of the repository, and tries it there as its users would,
// on the oldest Node that it promises and on this one: every subpath, the command line, every example. What `npm` has
// in its cache it takes from there.
import { execFile } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const TIMEOUT_MS = 300_000;
const NPM_FLAGS = ['--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error'];
const PUBLINT = 'publint@0.3.25';
const ATTW = '@arethetypeswrong/cli@0.18.5';

const root = fileURLToPath(new URL('..', import.meta.url));
const { name, engines, exports, allowScripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const oldest = `${engines.node.replace('>=', '')}.0`;
const folder = mkdtempSync(join(tmpdir(), `${name}-trial-`));
let numFailed = 0;

/** Runs a command, and says whether it ended well and its output holds `wanted`. Returns the output, '' if not. */
async function step(title, command, args, { cwd = folder, wanted = '' } = {}) {
  const startedAt = performance.now();
  let stdout = '';
  let problem = '';
  try {
    ({ stdout } = await promisify(execFile)(command, args, { cwd, timeout: TIMEOUT_MS, maxBuffer: 2 ** 26 }));
    if (!stdout.includes(wanted)) problem = `"${wanted}" is not in its output:\n${stdout}`;
  } catch (error) {
    problem = `${error.message}\n${error.stdout}\n${error.stderr}`;
  }
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
  console.log(`${problem === '' ? 'ok    ' : 'FAILED'} ${seconds.padStart(5)} s  ${title}`);
  if (problem === '') return stdout;
  console.log(problem);
  numFailed += 1;
  return '';
}

/** A script that imports a module, and throws if that alone opened anything: a thread, a socket, a timer. */
function importOf(specifier) {
  return `const opened = () => process.getActiveResourcesInfo().filter((kind) => !/^(TTY|Pipe)Wrap$/.test(kind)).join();
    const before = opened();
    const names = Object.keys(await import('${specifier}'));
    if (opened() !== before) throw new Error('importing ${specifier} opened ' + opened());
    console.log(names.length, 'names');`;
}

/** With the compiler of this repository: the package has none. */
async function checkTypes() {
  const of = (...path) => join(root, 'node_modules', ...path);
  const compilerOptions = {
    noEmit: true,
    strict: true,
    skipLibCheck: true,
    allowImportingTsExtensions: true,
    module: 'nodenext',
    target: 'es2024',
    lib: ['es2024', 'esnext.disposable'],
    types: [of('@types', 'node')],
  };
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['examples'] }));
  await step('the types fit the examples', process.execPath, [of('typescript', 'bin', 'tsc'), '--project', folder]);
}

async function tryOn(node, version, examples) {
  const cli = join('node_modules', name, 'bin', 'routed-experts.mjs');
  const run = (title, args, wanted) => step(`Node ${version}: ${title}`, node, args, { wanted });
  for (const subpath of Object.keys(exports).filter((path) => !path.endsWith('.json'))) {
    const specifier = `${name}${subpath.slice(1)}`;
    await run(`import of ${specifier}`, ['--input-type=module', '--eval', importOf(specifier)], 'names');
  }
  await run('--version', [cli, '--version'], '.');
  await run('devices', [cli, 'devices'], 'cpu');
  const designs = ['--design', `deltas,${join('examples', 'designs', 'overlay.ts')}`];
  await run('fuzz', [cli, 'fuzz', ...designs, '--seeds', '100', '--jobs', '1'], '200 scenarios');
  const little = ['--model', 'tiny', '--opt-in', '1', '--requests', '8', '--repeats', '1', '--ballast-ms', '0'];
  await run('bench', [cli, 'bench', ...designs, '--device', 'cpu', ...little], ' 0 mismatched');
  for (const example of examples) await run(`examples/${example}`, [join('examples', example)], '');
}

async function tryPackage() {
  const packed = await step('npm pack', 'npm', ['pack', '--json', '--silent', '--pack-destination', folder], {
    cwd: root,
  });
  if (packed === '') return;
  // The output of the build stands before it.
  const [{ filename, files }] = JSON.parse(packed.slice(packed.indexOf('[\n')));
  const source = files.find(({ path }) => path.endsWith('.ts') && !path.endsWith('.d.ts'));
  await step('publint finds nothing', 'npx', ['--yes', '--prefer-offline', PUBLINT, '--strict', filename]);
  await step('attw finds nothing', 'npx', ['--yes', '--prefer-offline', ATTW, '--profile', 'esm-only', filename]);
  if (source !== undefined) throw new Error(`the package holds TypeScript: ${source.path}`);

  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'trial', type: 'module', allowScripts }));
  const install = ['install', ...NPM_FLAGS, `./${filename}`, `node@${oldest}`];
  if ((await step(`npm install, with Node ${oldest}`, 'npm', install)) === '') return;
  cpSync(join(root, 'examples'), join(folder, 'examples'), { recursive: true });
  const examples = readdirSync(join(folder, 'examples')).filter((file) => file.endsWith('.ts'));
  await checkTypes();
  const installed = join(folder, 'node_modules', 'node', 'bin', 'node');
  await Promise.all([tryOn(installed, oldest, examples), tryOn(process.execPath, process.versions.node, examples)]);
}

try {
  await tryPackage();
} finally {
  rmSync(folder, { recursive: true, force: true });
}
const seconds = Math.round(performance.now() / 1000);
console.log(`pack trial: ${numFailed === 0 ? 'nothing' : numFailed} failed, ${seconds} s`);
process.exitCode = numFailed === 0 ? 0 : 1;

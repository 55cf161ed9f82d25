import { Command, Option } from 'commander';
import { TIER_NAMES, type TierName } from './catalogue/tiers.ts';
import { BUDGET_SCOPES, BUDGET_WINDOWS, scopeKey, type BudgetWindow } from './cost/budget-scope.ts';
import type { VerifyOptions } from './audit-commands.ts';
import { anySandbox, loadEnv, loadSecretSettings } from './env.ts';
import { PROVIDER_NAMES, type ProviderName } from './secrets/secret-provider.ts';
import { parseUsd } from './shared/usd-ticks.ts';

// `npx novix …`. What a command needs is loaded when it runs: to mint a token takes no ORM and no web framework.

interface JsonOption {
  json?: true;
}

const json = (): Option => new Option('--json', 'print JSON');

/** Runs the command that the process was started with. */
export async function runCommand(): Promise<void> {
  const program = new Command('novix').description('Novix Gateway for xAI Grok')
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'novix: ')) });

  program.command('start').description('start the gateway').action(async () => (await import('./start.ts')).main());

  program.command('migrate').description('bring the database up to date').addOption(json()).action(async (options: JsonOption) => {
    const ran = await (await databaseCommands()).migrate();
    print(options, { migrations: ran }, ran.length === 0 ? 'The database is up to date.' : `Ran ${ran.join(', ')}.`);
  });

  program.command('config').description('settings').command('check').description('check settings and config files without starting').addOption(json())
    .action(async (options: JsonOption) => {
      const { env, sandbox } = await loadEnv();
      (await import('./config-check.ts')).checkConfigFiles(env);
      const imitated = Object.entries(sandbox).filter(([, on]) => on).map(([part]) => part);
      print(options, { ok: true, sandbox: imitated }, `Settings are good. ${anySandbox(sandbox) ? `Sandbox: ${imitated.join(', ')}.` : 'No sandbox part.'}`);
    });

  program.command('token').description('sandbox tokens').command('mint').description('make a token of the sandbox issuer')
    .requiredOption('--tenant <id>').requiredOption('--sub <subject>').option('--role <role...>', 'one or more roles', ['developer']).option('--attr <key=value...>', 'attributes')
    .option('--ttl <seconds>', 'lifetime', '3600').addOption(json())
    .action(mintToken);

  const secret = program.command('secret').description('sealed secrets');
  // A secret that was given as an argument by mistake must not be shown in the complaint.
  secret.command('seal').allowExcessArguments().description('seal the value on standard input, and print what stands after "enc:"').requiredOption('--name <name>', 'what it is for, such as XAI_API_KEY; it opens under no other name')
    .addOption(new Option('--provider <provider>', 'who seals; the one that is set up, vault before age before local, where none is named').choices([...PROVIDER_NAMES])).addOption(json())
    .action(async ({ name, provider, ...options }: JsonOption & { name: string; provider?: ProviderName }, { args }: Command) => {
      if (args.length > 0) throw new Error('give the value on standard input, not as an argument: arguments are seen by everyone on the machine');
      const value = await readSecret();
      const sealed = (await withSecrets((secrets) => secrets.seal(name, value, provider))).slice('enc:'.length);
      print(options, { name, sealed }, sealed);
    });
  secret.command('open').description('open the sealed value on standard input').requiredOption('--name <name>').addOption(json())
    .action(async ({ name, ...options }: JsonOption & { name: string }) => {
      const given = await readSecret();
      const value = await withSecrets((secrets) => secrets.open(name, given.startsWith('enc:') ? given : `enc:${given}`));
      print(options, { name, value }, value);
    });
  secret.command('age-identity').description('make a post-quantum age identity file, for AGE_IDENTITY_FILE').requiredOption('--out <file>', 'must not be there yet').addOption(json())
    .action(async ({ out, ...options }: JsonOption & { out: string }) => {
      const recipient = await (await import('./secrets/age-seal.ts')).makeIdentityFile(out);
      print(options, { file: out, recipient }, `Made ${out}. Keep a copy where it is safe: what is sealed with it opens with nothing else. Its public key:\n${recipient}`);
    });

  program.command('tenant').description('tenants').command('create').description('make a tenant in the database itself')
    .requiredOption('--id <id>').requiredOption('--name <name>').addOption(new Option('--tier <tier>').choices([...TIER_NAMES]).makeOptionMandatory()).addOption(json())
    .action(async ({ id, name, tier, ...options }: JsonOption & { id: string; name: string; tier: TierName }) => {
      const tenant = await (await databaseCommands()).createTenant({ id, name, tier });
      print(options, tenant, `Tenant ${id} is made. It has no budget yet: npx novix budget create --tenant ${id} --limit-usd 100 --window month`);
    });

  program.command('budget').description('budgets').command('create').description('make a budget in the database itself')
    .requiredOption('--tenant <id>').requiredOption('--limit-usd <usd>').addOption(new Option('--window <window>').choices([...BUDGET_WINDOWS]).makeOptionMandatory())
    .option('--scope <type:id>', 'team:…, user:…, key:… or model:…; the whole tenant otherwise', 'tenant').addOption(json())
    .action(async ({ tenant, limitUsd, window, scope, ...options }: JsonOption & { tenant: string; limitUsd: string; window: BudgetWindow; scope: string }) => {
      const limitTicks = parseUsd(limitUsd);
      if (limitTicks === undefined) throw new Error('--limit-usd takes a decimal number of USD such as 12.50');
      const budget = await (await databaseCommands()).createBudget({ tenantId: tenant, scope: readScope(scope), window, limitTicks, warnAt: [] });
      print(options, budget, `Budget ${String(budget['id'])}: ${limitUsd} USD a ${window} for ${tenant}, ${scope}.`);
    });

  const audit = program.command('audit').description('the transparency log');
  audit.command('verify').description('check the whole log, of the database or of a gateway by its URL; status 1 and the first leaf at fault where it was changed')
    .option('--url <url>', 'of a gateway, in place of the database').option('--token <token>', 'of an auditor, for --url')
    .option('--key <file>', 'verifier keys that you trust, one a line').option('--checkpoint <file>', 'a checkpoint from before, which the log must go on from').addOption(json())
    .action(async (options: JsonOption & VerifyOptions) => {
      const { faults, ...report } = await (await import('./audit-commands.ts')).verifyAudit(options);
      const { describeFault } = await import('./audit/log-faults.ts');
      const what = `${report.leavesRead} leaves read of ${report.size} that are signed${report.prunedBelow === 0 ? '' : `, those below ${report.prunedBelow} pruned by policy`}; ${report.checkpoints} checkpoints; keys: ${report.keys}; ${report.seconds} s`;
      print(options, { ok: faults.length === 0, ...report, faults }, faults.length === 0 ? `The log verifies: ${report.origin}\n  ${what}` : `THE LOG DOES NOT VERIFY: ${report.origin}\n${faults.map((fault) => `  ${describeFault(fault)}`).join('\n')}\n  ${what}`);
      if (faults.length > 0) process.exitCode = 1;
    });
  audit.command('prove').description('print the proof that a leaf is in the log (tlog-proof)').requiredOption('--index <index>').option('--out <file>', 'write it there').addOption(json())
    .action(async ({ index, out, ...options }: JsonOption & { index: string; out?: string }) => {
      if (!/^\d{1,15}$/.test(index)) throw new Error('--index takes the index of a leaf');
      const proof = await (await import('./audit-commands.ts')).proveAudit(Number(index), out);
      print(options, { index: Number(index), proof }, out === undefined ? proof.trimEnd() : `The proof of leaf ${index} is in ${out}.`);
    });

  program.command('evidence').description('evidence for controls').command('export').description('print what an assessor asks for, as one JSON document signed with the keys of the log (DSSE)').option('--out <file>', 'write it there')
    .action(async ({ out }: { out?: string }) => {
      const text = `${JSON.stringify(await (await import('./audit-commands.ts')).exportEvidence())}\n`;
      if (out === undefined) process.stdout.write(text);
      else await (await import('node:fs/promises')).writeFile(out, text);
    });

  program.command('ledger').description('the ledger').command('check').description('prove that the ledger adds up to the tick; status 1 and the rows where it does not').addOption(json())
    .action(async (options: JsonOption) => {
      const { checks, faults } = await (await databaseCommands()).checkLedgerOf();
      print(options, { ok: faults.length === 0, checks, faults }, faults.length === 0
        ? `The ledger adds up.\n${checks.map((check) => `  ${check}`).join('\n')}`
        : faults.map(({ check, id, expected, found }) => `${check}\n  ${id}: expected ${expected}, found ${found}`).join('\n'));
      if (faults.length > 0) process.exitCode = 1;
    });

  await program.parseAsync();
}

async function mintToken(options: JsonOption & { tenant: string; sub: string; role: string[]; attr?: string[]; ttl: string }): Promise<void> {
  const { env, sandbox } = await loadEnv();
  if (!sandbox.identity) throw new Error('AUTH_ISSUER is set: get tokens from that identity provider, not from here');
  if (!/^\d{1,8}$/.test(options.ttl) || Number(options.ttl) < 1) throw new Error('--ttl takes whole seconds, one or more');
  const { LocalIssuer, issuerKeyFile } = await import('./sandbox/local-issuer.ts');
  const issuer = await LocalIssuer.open(issuerKeyFile(env.dataDir));
  const token = await issuer.mint({ tenant: options.tenant, subject: options.sub, roles: options.role, attributes: readAttributes(options.attr ?? []), ttlSeconds: Number(options.ttl) });
  print(options, { token }, token);
}

async function withSecrets<T>(use: (secrets: import('./secrets/secrets.ts').Secrets) => Promise<T>): Promise<T> {
  const settings = await loadSecretSettings();
  const [{ Secrets }, { systemClock }] = await Promise.all([import('./secrets/secrets.ts'), import('./shared/clock.ts')]);
  const secrets = new Secrets(settings, { clock: systemClock, random: Math.random, onSecret: () => {}, onNotice: () => {} }); // a command writes no log
  try {
    return await use(secrets);
  } finally {
    await secrets.close();
  }
}

/** One line, without its end. */
async function readSecret(): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of process.stdin) parts.push(part as Buffer);
  const value = Buffer.concat(parts).toString().replace(/\r?\n$/, '');
  if (value === '' || /[\r\n]/.test(value)) throw new Error('give the value on standard input, in one line');
  return value;
}

function databaseCommands(): Promise<typeof import('./database-commands.ts')> {
  return import('./database-commands.ts');
}

function readScope(text: string): string {
  const [type, ...rest] = text.split(':');
  const known = BUDGET_SCOPES.find((scope) => scope === type);
  if (known === undefined) throw new Error('--scope takes tenant, or one of team:, user:, key:, model: with a name');
  return scopeKey(rest.length === 0 ? { type: known } : { type: known, id: rest.join(':') });
}

/** `clearance=3` is a number, `team=bi` a text, `region=eu,us` a list. */
function readAttributes(pairs: readonly string[]): Record<string, string | number | string[]> {
  return Object.fromEntries(pairs.map((pair) => {
    const [key, ...rest] = pair.split('=');
    if (!key || rest.length === 0) throw new Error(`--attr takes key=value, not ${pair}`);
    const value = rest.join('=');
    return [key, /^-?\d+(\.\d+)?$/.test(value) ? Number(value) : value.includes(',') ? value.split(',') : value];
  }));
}

function print(options: JsonOption, value: unknown, text: string): void {
  process.stdout.write(options.json ? `${JSON.stringify(value)}\n` : `${text}\n`);
}

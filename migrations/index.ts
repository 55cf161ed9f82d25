import { AddCostSettings20261124230000 } from './20261124230000-add-cost-settings.ts';
import { AddReconciliation20261125000000 } from './20261125000000-add-reconciliation.ts';
import { CreateAccess20261124200000 } from './20261124200000-create-access.ts';
import { CreateAuditLog20261124100100 } from './20261124100100-create-audit-log.ts';
import { CreateDeployments20261124190000 } from './20261124190000-create-deployments.ts';
import { CreateIdempotency20261124210000 } from './20261124210000-create-idempotency.ts';
import { CreateJournal20261124100000 } from './20261124100000-create-journal.ts';
import { CreateLedger20261124100200 } from './20261124100200-create-ledger.ts';
import { CreateTransparencyLog20261126000000 } from './20261126000000-create-transparency-log.ts';
import { CreatePayloadVault20261126200000 } from './20261126200000-create-payload-vault.ts';
import { CreateSiemSinks20261126100000 } from './20261126100000-create-siem-sinks.ts';
import { CreateUsage20261124220000 } from './20261124220000-create-usage.ts';
import { CreateStoredResponses20261124180000 } from './20261124180000-create-stored-responses.ts';

/** All migrations, oldest first: listed, because globs find nothing once the code is compiled elsewhere. */
export const MIGRATIONS = [CreateJournal20261124100000, CreateAuditLog20261124100100, CreateLedger20261124100200, CreateStoredResponses20261124180000, CreateDeployments20261124190000, CreateAccess20261124200000, CreateIdempotency20261124210000, CreateUsage20261124220000, AddCostSettings20261124230000, AddReconciliation20261125000000, CreateTransparencyLog20261126000000, CreateSiemSinks20261126100000, CreatePayloadVault20261126200000];

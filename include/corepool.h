/* corepool.h: a resource pool that is sharded one manager per CPU. Includes all public headers. */
#ifndef COREPOOL_H
#define COREPOOL_H

#include <corepool/checkout.h>
#include <corepool/error.h>
#include <corepool/event.h>
#include <corepool/http.h>
#include <corepool/http_relay.h>
#include <corepool/keyed.h>
#include <corepool/operate.h>
#include <corepool/pool.h>
#include <corepool/process.h>
#include <corepool/runtime.h>
#include <corepool/stream.h>
#include <corepool/topology.h>
#include <corepool/worker.h>

#endif

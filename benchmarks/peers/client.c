/* The physical limit: a continuous pull on the C client. It reads and acknowledges; it validates
   nothing.

   client URL STREAM CONSUMER EVENTS AT_ONCE
   asks for AT_ONCE events, again when half has come;
   says "ready", waits for a line, drains the consumer, prints its figures as JSON. */

#include <nats/nats.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t finished = PTHREAD_COND_INITIALIZER;
static int done = 0;

static long expected, at_once, handled = 0, asked = 0;
static char subject[512];
static natsInbox *inbox = NULL;

static void check(natsStatus status, const char *what) {
    if (status != NATS_OK) {
        fprintf(stderr, "%s: %s\n", what, natsStatus_GetText(status));
        exit(1);
    }
}

static void ask(natsConnection *connection, long batch) {
    char request[128];
    snprintf(request, sizeof request, "{\"batch\":%ld,\"expires\":600000000000}", batch);
    asked += batch;
    check(natsConnection_PublishRequest(connection, subject, inbox, request, (int)strlen(request)),
          "pull");
}

static void on_message(natsConnection *connection, natsSubscription *sub, natsMsg *message,
                       void *closure) {
    const char *reply = natsMsg_GetReply(message);
    (void)sub;
    (void)closure;
    if (reply == NULL || *reply == '\0') {
        const char *status = NULL;
        natsMsgHeader_Get(message, "Status", &status);
        fprintf(stderr, "the pull ended: %s\n", status ? status : "no status");
        exit(1);
    }
    check(natsConnection_PublishString(connection, reply, "+ACK"), "ack");
    natsMsg_Destroy(message);
    asked--;
    if (++handled == expected) {
        pthread_mutex_lock(&lock);
        done = 1;
        pthread_cond_signal(&finished);
        pthread_mutex_unlock(&lock);
    } else if (asked <= at_once / 2) {
        ask(connection, at_once - asked);
    }
}

static double cpu(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec)
           + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

int main(int count, char **arguments) {
    natsConnection *connection = NULL;
    natsSubscription *subscription = NULL;
    double began, burned;
    char line[16];

    if (count != 6) {
        fprintf(stderr, "usage: client URL STREAM CONSUMER EVENTS AT_ONCE\n");
        return 2;
    }
    expected = atol(arguments[4]);
    at_once = atol(arguments[5]);
    snprintf(subject, sizeof subject, "$JS.API.CONSUMER.MSG.NEXT.%s.%s", arguments[2],
             arguments[3]);
    check(natsConnection_ConnectTo(&connection, arguments[1]), "connect");
    check(natsInbox_Create(&inbox), "inbox");
    check(natsConnection_Subscribe(&subscription, connection, inbox, on_message, NULL),
          "subscribe");

    puts("ready");
    fflush(stdout);
    if (fgets(line, sizeof line, stdin) == NULL)
        return 1;

    began = now();
    burned = cpu();
    ask(connection, at_once);
    pthread_mutex_lock(&lock);
    while (!done)
        pthread_cond_wait(&finished, &lock);
    pthread_mutex_unlock(&lock);
    printf("{\"seconds\": %.6f, \"cpu\": %.6f, \"handled\": %ld}\n", now() - began, cpu() - burned,
           handled);
    check(natsConnection_FlushTimeout(connection, 5000), "flush");
    return 0;
}

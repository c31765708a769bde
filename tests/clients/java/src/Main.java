/** The checks of the Java client against the broker at BOOTSTRAP. */
final class Main {
    private Main() {}

    public static void main(String[] args) {
        Checks checks = new Checks();
        try (Cluster cluster = new Cluster(System.getenv("BOOTSTRAP"))) {
            new AdminChecks(checks, cluster).run();
            new ProduceChecks(checks, cluster).run();
            new ConsumeChecks(checks, cluster).run();
            new GroupChecks(checks, cluster).run();
            new ToolChecks(checks, cluster).run();
        }
        System.exit(checks.finish());
    }
}
